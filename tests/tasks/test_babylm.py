"""BabyLM's evaluation data: rows written here in its form, in a directory laid out as it comes."""

import json
import subprocess
import sys
import tarfile
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmlm.data import SentencePieceTokenizer, Tokenizer
from jaxmlm.errors import InputError
from jaxmlm.runs.recipes import recipe
from jaxmlm.tasks import babylm, babylm_sets
from jaxmlm.tasks.choices import rows_of
from jaxmlm.tasks.downstream import TaskData
from jaxmlm.tasks.likelihood import Copies
from jaxmlm.tasks.registry import benchmark_tasks, find_task

GOOD, BAD = "the old hen sees the fox", "the old hen see the fox"
GLUE = {
    "boolq": {"question": "is the fox red", "passage": "The fox is red."},
    "mnli": {"premise": "The hen sleeps.", "hypothesis": "The hen is awake."},
    "mrpc": {"sentence1": "The hen sleeps.", "sentence2": "The hen is asleep."},
    "multirc": {"paragraph": "The fox ran.", "question": "Who ran?", "answer": "The fox", "idx": {"answer": 0}},
    "qqp": {"question1": "Who ran?", "question2": "Who was it that ran?"},
    "rte": {"sentence1": "The fox ran.", "sentence2": "The hen ran."},
    "wsc": {"text": "The fox saw the hen, and it ran.", "span1_text": "The fox", "span2_text": "it", "span1_index": 0},
}


def write(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_directory(root: Path) -> Path:
    """A small evaluation_data with every set of every task."""
    for part, fast in (("full_eval", False), ("fast_eval", True)):
        directory = root / part
        for name in babylm_sets.BLIMP:
            more = {"UID": name, "linguistics_term": "islands" if "island" in name else "others", "field": "syntax"}
            write(directory / f"blimp_{'fast' if fast else 'filtered'}/{name}.jsonl",
                  [{"sentence_good": GOOD, "sentence_bad": BAD, **more}])  # fmt: skip
        for name in babylm_sets.SUPPLEMENT:
            pair = {"row": 0, "sentence_good": "A: Who ran?\nB: The fox.", "sentence_bad": "A: Who ran?\nB: The red."}
            write(directory / f"supplement_{'fast' if fast else 'filtered'}/{name}.jsonl", [pair, pair])
        for name in ("regular",) if fast else ("regular", "ambiref", "move_contents"):
            rows = [
                {"numops": n, "input_prefix": "Box 0 holds the hen. Box 0 holds ", "options": ["the hen.", "the fox."]}
                for n in range(6)
            ]
            write(directory / f"entity_tracking{'_fast' if fast else ''}/{name}.jsonl", rows)
        wugs = [{"sentences": f"It is wug{i}able. wug{i}ability\tIt is wug{i}able. wug{i}ness", "ratio": i / 4}
                for i in range(4)]  # fmt: skip
        write(directory / "wug_adj_nominalization/wug_adj_nominalization.jsonl", wugs)
    for (name, item), split in product(GLUE.items(), ("train", "valid")):
        if (name, split) not in (("boolq", "train"), ("multirc", "train")):
            write(root / f"full_eval/glue_filtered/{name}.{split}.jsonl", [{**item, "label": i % 2} for i in range(8)])
    return root


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory) -> Path:
    return write_directory(tmp_path_factory.mktemp("babylm") / "evaluation_data")


@pytest.fixture
def directory(tmp_path) -> Path:
    return write_directory(tmp_path / "evaluation_data")


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    texts = [GOOD, BAD, "A: Who ran?\nB: The fox.", "Box 0 holds the hen.", "It is wug0able. wug0ability wug1ness 23"]
    return SentencePieceTokenizer.train(texts * 4, 47)


class Likes:
    """A token is as probable as its number is low, wherever it stands."""

    def logits_at(self, ids, segments, positions):
        return jnp.broadcast_to(-0.01 * jnp.arange(400.0), (*positions.shape, 400))


def run(prepared: babylm.Prepared, directory: Path | None = None) -> dict[str, float]:
    """The scores by a model that likes low numbers; predictions are written."""
    model: Any = Likes()
    kept = []
    for batch in prepared.eval.batches():
        outputs = prepared.eval.predict(model, jax.tree.map(jnp.asarray, batch))
        kept.append({name: np.asarray(x)[batch["weight"] > 0] for name, x in outputs.items()})
    joined = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    if directory is not None and prepared.eval.save is not None:
        prepared.eval.save(joined, directory)
    return prepared.eval.score(joined)


def prepared(rows: list[babylm.Row], name: str, tokenizer: Tokenizer, most: int = 512) -> babylm.Prepared:
    return babylm.prepare(rows, name, tokenizer, batch=16, most=most)


def test_the_directory_is_read_as_it_comes(unchanged):
    assert babylm.tasks_in(unchanged) == ("blimp", "supplement", "entity_tracking", "wug_adj")
    assert babylm.tasks_in(unchanged.parent, fast=True) == babylm.tasks_in(unchanged)
    assert babylm.missing_from(unchanged) == "ewok (ewok_filtered), wug_past (wug_past_tense), comps (comps)"
    pairs = babylm.read(unchanged, "supplement")
    assert (pairs[0].choice.set, pairs[0].choice.field, len(pairs)) == ("hypernym", "", 10)
    assert "\n" in pairs[0].choice.options[0]
    boxes = babylm.read(unchanged, "entity_tracking")
    assert {row.choice.set for row in boxes} == set(babylm_sets.ENTITY_TRACKING)
    assert boxes[0].choice.scored == ("the hen.", "the fox.") == boxes[0].answers
    assert [row.ratio for row in babylm.read(unchanged, "wug_adj")] == [0, 0.25, 0.5, 0.75]
    assert "67 rows, officially 59,875" in babylm.notes_on(babylm.read(unchanged, "blimp"), "blimp")[0]


def test_sets_that_are_not_public_are_read_where_a_user_has_them(directory):
    item = {"Domain": "social", "Context1": "Ann helps Bo.", "Target1": "Bo thanks Ann.", "Target2": "Bo flees Ann."}
    for domain in babylm_sets.EWOK:
        write(directory / f"full_eval/ewok_filtered/{domain}.jsonl", [{**item, "Domain": domain}])
    phrase = {"prefix_acceptable": "A hen", "prefix_unacceptable": "A stone", "property_phrase": "lays eggs."}
    for file in ("base", "wugs", "wugs_dist-before", "wugs_dist-in-between"):
        write(directory / f"full_eval/comps/comps_{file}.jsonl", [phrase])
    (row, *_) = babylm.read(directory, "ewok")
    assert row.choice.options == ("Ann helps Bo. Bo thanks Ann.", "Ann helps Bo. Bo flees Ann.")
    assert row.answers == (" Bo thanks Ann.", " Bo flees Ann.") == row.choice.scored
    (row, *_) = babylm.read(directory, "comps")
    assert row.choice.scored == ("lays eggs.", "lays eggs.") and row.answers == (
        "A hen lays eggs.",
        "A stone lays eggs.",
    )
    assert {row.choice.set for row in babylm.read(directory, "comps")} == set(babylm_sets.COMPS)


@pytest.mark.parametrize(("path", "content", "message"), [
    ("supplement_filtered/hypernym.jsonl", '{"sentence_good": "a"}', "hypernym.jsonl:2: no text 'sentence_bad'"),
    ("blimp_filtered/wh_island.jsonl", '{"field": "x", "sentence_good": "a", "sentence_bad": "b"}', "no text 'UID'"),
    ("blimp_filtered/wh_island.jsonl", "[1]", "wh_island.jsonl:2: no text 'sentence_good'"),
    ("blimp_filtered/wh_island.jsonl", "{", "wh_island.jsonl:2: not a JSON object"),
    ("entity_tracking/regular.jsonl", '{"input_prefix": "a", "options": ["b"], "numops": 1}', "jsonl:2: no list 'opt"),
    ("wug_adj_nominalization/wug_adj_nominalization.jsonl", '{"sentences": "a", "ratio": 1}', "jsonl:2: expected two"),
])  # fmt: skip
def test_a_broken_row_is_named(directory, path, content, message):
    file = directory / "full_eval" / path
    file.write_text("\n" + content + "\n")  # a blank line before it counts
    task = next(name for name, task in babylm.TASKS.items() if task.full == path.split("/")[0])
    with pytest.raises(InputError, match=message):
        babylm.read(directory, task)


def test_a_directory_of_another_year_and_missing_sets_are_named(directory, tmp_path):
    with pytest.raises(InputError, match="name the directory above it"):
        babylm.root_of(directory / "full_eval")
    write(tmp_path / "older/blimp_filtered/a.jsonl", [])
    with pytest.raises(InputError, match="has no full_eval .blimp_filtered.: these are the data of 2023 or 2024"):
        babylm.root_of(tmp_path / "older")
    with pytest.raises(InputError, match="is not a directory"):
        babylm.root_of(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"lacks ewok \(ewok_filtered\)"):
        babylm.tasks_in(directory, tasks=("ewok",))
    with pytest.raises(InputError, match="no task 'glue'"):
        babylm.tasks_in(directory, tasks=("glue",))
    (directory / "full_eval/blimp_filtered/wh_island.jsonl").unlink()
    with pytest.raises(InputError, match="1 of the 67 sets are missing: wh_island"):
        babylm.read(directory, "blimp")
    write(directory / "full_eval/supplement_filtered/more.jsonl", [{"sentence_good": "a", "sentence_bad": "b"}])
    with pytest.raises(InputError, match="not a set of supplement of 2025 or 2026: more"):
        babylm.read(directory, "supplement")
    for file in (directory / "full_eval/blimp_filtered").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"lacks blimp \(blimp_filtered\)"):
        babylm.tasks_in(directory)


def test_ties_are_the_first_sentence_to_the_pipeline_and_one_half_here(unchanged, tokenizer, tmp_path):
    """All its rules beside ours: of a pair that the tokenizer cannot distinguish, and of one that the model cannot."""
    rows = babylm.read(unchanged, "supplement")[:2]
    words = ("the fox", "THE FOX"), ("the red", "red the")
    made = [babylm.Row(row.choice._replace(options=pair), pair) for row, pair in zip(rows, words, strict=True)]
    scores = run(prepared(made, "supplement", tokenizer), tmp_path)
    assert (scores["accuracy"], scores["accuracy_ties_half"], scores["same"]) == (1.0, 0.5, 1.0)
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written == {"hypernym": {"predictions": [
        {"id": "hypernym_0", "pred": "the fox"}, {"id": "hypernym_1", "pred": "the red"},
    ]}}  # fmt: skip


def test_accuracy_is_the_mean_over_sets(unchanged, tokenizer):
    """A set of three pairs counts as much as one of a single pair; the bad sentence wins in the second set."""
    cost = {text: sum(tokenizer.encode(text)) for text in (GOOD, BAD)}
    good, bad = sorted((GOOD, BAD), key=lambda text: cost[text] + 100 * len(tokenizer.encode(text)))
    row = babylm.read(unchanged, "blimp")[0]

    def pair(name: str, *options: str) -> babylm.Row:
        return babylm.Row(row.choice._replace(set=name, options=options), options)

    scores = run(prepared([*[pair("a", good, bad)] * 3, pair("b", bad, good)], "blimp", tokenizer))
    assert scores["accuracy"] == 0.5 == scores["accuracy_ties_half"] == scores["field/islands"]
    assert (scores["set/a"], scores["set/b"]) == (1.0, 0.0)


def test_only_the_option_is_scored_behind_its_context(unchanged, tokenizer):
    """Each token of the option and none of the context is masked; a context that is too long loses its beginning."""
    choice = babylm.read(unchanged, "entity_tracking")[0].choice
    whole = rows_of([choice], tokenizer)
    texts = [tokenizer.encode(option) for option in choice.options]
    parts = [row[begin:-1] for row, begin in zip(whole.ids, whole.begins, strict=True)]
    assert tuple(tokenizer.decode(part) for part in parts) == choice.scored
    short = rows_of([choice], tokenizer, most=len(texts[0]) + 2 - 3)
    assert short.cut == 2 and short.ids[0][1:-1] == texts[0][3:] and short.begins[0] == whole.begins[0] - 3
    copies = Copies(short.ids, tokenizer, 4, short.begins)
    assert copies.tokens.tolist() == [len(part) for part in parts]
    targets = [int(t) for batch in copies.batches() for t, w in zip(batch["target"], batch["weight"], strict=True) if w]
    assert sorted(targets) == sorted(sum(parts, []))
    assert (
        "over 12 tokens"
        in prepared(babylm.read(unchanged, "entity_tracking"), "entity_tracking", tokenizer, 12).notes[1]
    )


def test_wugs_have_the_odds_of_the_first(unchanged, tokenizer, tmp_path):
    rows = babylm.read(unchanged, "wug_adj")
    scores = run(prepared(rows, "wug_adj", tokenizer), tmp_path)
    assert -1 <= scores["spearman"] <= 1
    (lines,) = (one["predictions"] for one in json.loads((tmp_path / "predictions.json").read_text()).values())
    nats = [[-0.01 * sum(tokenizer.encode(text)) for text in row.choice.options] for row in rows]
    sizes = [[len(tokenizer.encode(text)) for text in row.choice.options] for row in rows]
    constant = float(jax.nn.logsumexp(-0.01 * jnp.arange(400.0)))
    for line, (a, b), (m, n), row in zip(lines, nats, sizes, rows, strict=True):
        first = 1 / (1 + np.exp((b - n * constant) - (a - m * constant)))
        assert line["prob"] == pytest.approx(first, rel=1e-5)
        assert line["pred"] == row.answers[0 if first >= 0.5 else 1]
    assert [line["id"] for line in lines] == [f"wug_adj_{i}" for i in range(4)]


def test_the_rest_of_a_word_can_be_masked_with_a_token(tokenizer):
    """PLL-word-l2r: what is left of the token stays, what is right of it in its word is masked, other words stay."""
    ids = [tokenizer.cls_id, *tokenizer.encode("the wug0ability sees"), tokenizer.sep_id]
    bits = tokenizer.boundaries[ids]
    starts = [i for i in range(len(ids)) if bits[i] & 1 or (i and bits[i - 1] & 2)]
    word = np.searchsorted(starts, np.arange(len(ids)), side="right")
    found = {}
    for batch in Copies([ids], tokenizer, 4, pll_word=True).batches():
        for row, (at,), weight in zip(batch["ids"], batch["position"], batch["weight"], strict=True):
            if weight:
                found[int(at)] = row[: len(ids)].tolist()
    assert len(found) == len(ids) - 2 and max(np.bincount(word)) > 2
    for at, row in found.items():
        hidden = [i for i in range(at, len(ids)) if word[i] == word[at]]
        assert row == [tokenizer.mask_id if i in hidden else token for i, token in enumerate(ids)]


def test_the_fine_tuning_tasks(unchanged, tmp_path):
    data = TaskData(str(unchanged))
    assert benchmark_tasks("BabyLM") == [f"babylm-{name}" for name in GLUE]
    for name in set(GLUE) - {"boolq", "multirc"}:
        task = find_task(f"babylm-{name}")
        found = task.read(data)
        assert len(found.train) == 8 and found.train.labels is not None and found.train.labels.tolist() == [0, 1] * 4
        assert len(task.labels(found)) == (3 if name == "mnli" else 2)
        assert task.metrics(found)[0] == ("f1" if name in ("mrpc", "qqp") else "accuracy")
        assert any("officially" in note for note in found.notes)
    texts = [column[0] for column in find_task("babylm-wsc").read(data).train.texts]
    assert texts == ['Does "it" refer to "The fox" in this passage?', GLUE["wsc"]["text"]]
    for name in ("boolq", "multirc"):
        with pytest.raises(InputError, match=rf"{name}.train.jsonl is missing: .* --task babylm-mnli,babylm-mrpc"):
            find_task(f"babylm-{name}").read(data)
    write(unchanged / "full_eval/glue_filtered/multirc.train.jsonl", [{**GLUE["multirc"], "label": 1}])
    found = find_task("babylm-multirc").read(data)
    (unchanged / "full_eval/glue_filtered/multirc.train.jsonl").unlink()
    assert [column[0] for column in found.train.texts] == ["Question: Who ran? Answer: The fox", "The fox ran."]


@pytest.mark.parametrize("label", [2, "1", True, None])
def test_a_label_that_is_none_is_named_with_its_line(directory, label):
    path = directory / "full_eval/glue_filtered/rte.train.jsonl"
    write(path, [{**GLUE["rte"], "label": 0}, {**GLUE["rte"], "label": label}])
    with pytest.raises(InputError, match=r"rte.train.jsonl:2: label is .*, expected a whole number from 0 to 1"):
        find_task("babylm-rte").read(TaskData(str(directory)))


def test_the_recipe():
    settings = {name: recipe("babylm", name) for name in benchmark_tasks("BabyLM")}
    assert {one.learning_rate for one in settings.values()} == {3e-5} and {one.length for one in settings.values()} == {
        512
    }
    assert [name for name, one in settings.items() if one.batch == 16] == ["babylm-boolq", "babylm-multirc"]
    assert {name: one.epochs for name, one in settings.items() if one.epochs != 10} == {"babylm-wsc": 30}
    with pytest.raises(InputError, match="recipe babylm has no setting for sst2"):
        recipe("babylm", "sst2")


COUNTS = """
import json, sys
from pathlib import Path
from jaxmlm.tasks import babylm, babylm_finetuning, blimp
from jaxmlm.tasks.downstream import TaskData

directory = Path(sys.argv[1])
notes = []
for fast in (False, True):
    for name in babylm.tasks_in(directory, fast):
        notes += babylm.notes_on(babylm.read(directory, name, fast), name, fast)
pairs = babylm.read(directory, "blimp")
plain = blimp.read(directory / "evaluation_data/full_eval/blimp_filtered")
trained = {
    name: len(task.read(TaskData(str(directory))).train)
    for name, task in babylm_finetuning.TASKS.items()
    if name not in ("babylm-boolq", "babylm-multirc")
}
same = [pair.choice.options for pair in plain] == [row.choice.options for row in pairs]
print(json.dumps([notes, len(pairs), len(babylm.read(directory, "supplement")), same, trained]))
"""


@pytest.mark.slow("unpacks and reads all of BabyLM's evaluation data")
def test_the_counts_of_the_real_directory(real_data, tmp_path):
    """Every set is there with BabyLM's own number of rows; pairs are those that plain BLiMP reads.

    In a process of its own: with the types of every row checked it takes minutes.
    """
    with tarfile.open(real_data / "babylm" / "babylm_eval.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    made = subprocess.run([sys.executable, "-c", COUNTS, str(tmp_path)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    trained = dict(zip(("mnli", "mrpc", "qqp", "rte", "wsc"), (10_000, 3668, 10_000, 2490, 554), strict=True))
    assert json.loads(made.stdout) == [
        [], 59_875, 5_218, True, {f"babylm-{name}": count for name, count in trained.items()},
    ]  # fmt: skip
