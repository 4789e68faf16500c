"""Our scores beside scikit-learn's and scipy's; how pairs are encoded beside transformers."""

import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import transformers

from jaxmlm.data.hf_tokenizer import HfTokenizer
from jaxmlm.tasks import metrics, sentences, squad
from jaxmlm.tasks.downstream import EncodingOptions
from jaxmlm.tasks.entities import entity_scores
from jaxmlm.tasks.registry import find_task
from jaxmlm.tasks.table import Examples, Sets, Table
from jaxmlm.tasks.tagging import TaggedSets
from jaxmlm.tasks.tagging_files import TaggedSentence

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_scores_are_scikit_learns(seed, share):
    """Random predictions and, at shares 0 and 1, predictions that are all one class."""
    random = np.random.default_rng(seed)
    labels, said = random.integers(0, 2, 40), (random.random(40) < share).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sklearn.metrics.accuracy_score(labels, said),
            "f1": sklearn.metrics.f1_score(labels, said, zero_division=0.0),
            "matthews": sklearn.metrics.matthews_corrcoef(labels, said),
        }
    for name, value in expected.items():
        assert metrics.METRICS[name](labels, said) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["random", "one class", "right", "a class never seen"])
def test_matthews_of_three_classes_is_scikit_learns(seed, kind):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 60)
    said = {
        "random": random.integers(0, 3, 60),
        "one class": np.full(60, 1),
        "right": labels,
        "a class never seen": random.integers(0, 4, 60),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sklearn.metrics.matthews_corrcoef(labels, said)
    assert metrics.matthews(labels, said) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["random", "ties", "constant"])
def test_correlations_are_scipys(seed, kind):
    """Undefined ones (nan there) are 0 here."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 26, 50) / 5
    said = {"random": random.normal(size=50), "ties": random.integers(0, 3, 50) / 2, "constant": np.full(50, 2.5)}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "pearson": scipy.stats.pearsonr(labels, said).statistic,
            "spearman": scipy.stats.spearmanr(labels, said).statistic,
        }
    for name, value in expected.items():
        assert metrics.METRICS[name](labels, said) == pytest.approx(np.nan_to_num(value), abs=1e-12)


WORDS = "a small red fox sees the old owl by a river and runs away".split()


@pytest.fixture(params=["Bert", "Roberta"])
def family(request, tmp_path):
    """The name of a family; its tokenizer, trained on a few words, lies in tmp_path."""
    import tokenizers

    if request.param == "Bert":
        made = tokenizers.BertWordPieceTokenizer()
        made.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=120, show_progress=False)
        fast = transformers.BertTokenizerFast(tokenizer_object=made._tokenizer)
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        made = tokenizers.ByteLevelBPETokenizer()
        made.train_from_iterator([" ".join(WORDS)] * 9, vocab_size=300, special_tokens=special, show_progress=False)
        fast = transformers.RobertaTokenizerFast(tokenizer_object=made._tokenizer)
    fast.save_pretrained(tmp_path)
    return request.param


def test_pairs_are_encoded_as_the_model_was_pre_trained(family, tmp_path):
    """Ids and token types are those of transformers, cut by its longest_first, also for single texts."""
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    random = np.random.default_rng(0)
    texts = [[" ".join(random.choice(WORDS, random.integers(0, 14))) for _ in range(40)] for _ in range(2)]
    for columns in (texts, texts[:1]):
        table = Table("x", ("a", "b")[: len(columns)], "label", ("0", "1"))
        rows = Examples(table, tuple(columns), None, [str(i) for i in range(40)])
        tokenizer = HfTokenizer(tmp_path)
        data = sentences.encode_sets(Sets(rows, {"dev": rows}), tokenizer, EncodingOptions(12, token_types=True))
        want = theirs(*columns, truncation="longest_first", max_length=12, return_token_type_ids=True)
        assert [ids.tolist() for ids in data.train.sequences] == want["input_ids"]
        assert 0 < data.train.truncated < 40
        [batch] = sentences.evaluation(data, data.train, 40, "dev").batches()
        for row, ids, types in zip(batch["row"], batch["ids"], batch["types"], strict=True):
            size = len(want["input_ids"][row])
            assert ids[:size].tolist() == want["input_ids"][row]
            if family == "Bert":  # RoBERTa has one type
                assert types[:size].tolist() == want["token_type_ids"][row] and not types[size:].any()


@pytest.mark.parametrize("stride", [5, 100])
def test_windows_of_squad_are_those_of_transformers(family, tmp_path, stride):
    """Ids, token types and characters of every window, each separator of RoBERTa's two included.

    Theirs is told how many tokens two windows share, ours how far apart they begin.
    """
    theirs, ours, length = transformers.AutoTokenizer.from_pretrained(tmp_path), HfTokenizer(tmp_path), 32
    gap = {"Bert": 1, "Roberta": 2}[family]
    random = np.random.default_rng(1)
    say = lambda least, most: " ".join(random.choice(WORDS, random.integers(least, most)))  # noqa: E731
    paragraphs = [say(5, 80) for _ in range(6)]
    questions = [squad.Question(str(i), say(2, 7), i // 2, (("x", 0),)) for i in range(12)]
    whole = squad.Squad(paragraphs, questions)
    data = squad.encode((whole, whole), ours, length, stride, types=True)
    w, number = data.dev, 0
    batches = list(squad.objective(data, lambda key: None, batch=8, seed=0).evals["dev"].batches())
    padded = {
        int(at): (ids, types)
        for batch in batches
        for at, ids, types in zip(batch["window"], batch["ids"], batch["types"], strict=True)
    }
    for q in questions:
        asked = len(theirs(q.text, add_special_tokens=False)["input_ids"])
        room = length - 2 - gap - asked
        want = theirs(
            q.text, paragraphs[q.paragraph], truncation="only_second", max_length=length,
            stride=room - min(stride, room), return_overflowing_tokens=True, return_offsets_mapping=True,
            return_token_type_ids=True,
        )  # fmt: skip
        for ids, offsets, types in zip(want["input_ids"], want["offset_mapping"], want["token_type_ids"], strict=True):
            assert w.question[number] == int(q.id)
            assert w.row(number, ours) == ids
            first, count, begin = w.first()[number], w.count[number], w.begin[number]
            got = w.offsets[q.paragraph][begin : begin + count]
            for (a, b), (c, d) in zip(got, offsets[first : first + count], strict=True):
                assert paragraphs[q.paragraph][a:b].strip() == paragraphs[q.paragraph][c:d].strip()
            row, said = padded[number]
            assert row[: len(ids)].tolist() == ids
            if family == "Bert":  # RoBERTa has one type
                assert said[: len(ids)].tolist() == types and not said[len(ids) :].any()
            number += 1
    assert number == len(w.begin) > len(questions)


@pytest.mark.parametrize("seed", range(10))
def test_entity_scores_are_seqevals(seed):
    """Random BIO tags, those that break its rules included, overall and of each type."""
    import seqeval.metrics

    random = np.random.default_rng(seed)
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    gold, said = ([random.choice(tags, 9).tolist() for _ in range(30)] for _ in range(2))
    said = [
        [a if random.random() < 0.7 else b for a, b in zip(*pair, strict=True)] for pair in zip(gold, said, strict=True)
    ]
    ours = entity_scores(gold, said)
    for name in ("f1", "precision", "recall"):
        assert ours[name] == pytest.approx(getattr(seqeval.metrics, f"{name}_score")(gold, said))
    report = seqeval.metrics.classification_report(gold, said, output_dict=True)
    assert ours["f1_PER"] == pytest.approx(report["PER"]["f1-score"])
    assert ours["f1_LOC"] == pytest.approx(report["LOC"]["f1-score"])


def test_words_are_encoded_and_labelled_as_by_run_ner(family, tmp_path):
    """Ids and labels of words in a sentence, cut to a length: those of run_ner.py's tokenize_and_align_labels."""
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
    theirs.save_pretrained(tmp_path)
    random = np.random.default_rng(0)
    tags = ["O", "B-A", "I-A"]
    sentences_of = [random.choice([*WORDS, "owl's", "foxes"], random.integers(1, 14)).tolist() for _ in range(40)]
    rows = [TaggedSentence(words, random.choice(tags, len(words)).tolist(), [1] * len(words)) for words in sentences_of]
    sets = TaggedSets(("O", "B-A", "I-A"), rows, {"dev": rows}, {"dev": []})
    data = find_task("ner").encode(sets, HfTokenizer(tmp_path), EncodingOptions(12))
    [batch] = data.task.objective(data, dict, batch=40, seed=0).evals["dev"].batches()
    cut = 0
    for row, ids, labels, counted in zip(*(batch[name] for name in ("row", "ids", "tags", "counted")), strict=True):
        want = theirs(rows[row].words, is_split_into_words=True, truncation=True, max_length=12)
        size = len(want["input_ids"])
        assert ids[:size].tolist() == want["input_ids"]
        before = None
        wanted = []
        for word in want.word_ids():
            first = word is not None and word != before
            wanted.append(tags.index(rows[row].tags[word]) if first else -100)
            before = word
        assert np.where(counted > 0, labels, -100)[:size].tolist() == wanted and not counted[size:].any()
        cut += max(word for word in want.word_ids() if word is not None) + 1 < len(rows[row].words)
    assert 0 < cut < 40
