"""Near duplicates and evaluation sets in a text: the same are found in any order and by any number of machines."""

import csv
import json
import random
import re
import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from jaxmlm import cli
from jaxmlm.data import Data, Store, build, merge
from jaxmlm.data import building as parts
from jaxmlm.data.cleaning.config import Clean
from jaxmlm.data.cleaning.evaluation_sets import files_of, read
from jaxmlm.data.cleaning.marking import Marker
from jaxmlm.data.cleaning.near_duplicates import band_keys, copies, groups
from jaxmlm.data.cleaning.ngrams import WordHashes, ngrams
from jaxmlm.data.sources import Document, Group, TextSource
from jaxmlm.errors import InputError
from jaxmlm.wording import install_command

NOUNS = (
    "river harbour engine garden teacher letter mountain bridge window market planet forest story winter lamp".split()
)
VERBS = "crossed painted repaired described remembered followed measured visited carried answered opened".split()


def passage(seed: object, sentences: int = 8) -> str:
    """A paragraph in which no run of 13 words is that of another one."""
    pick = random.Random(str(seed)).choice
    said = [
        f"The {pick(NOUNS)} {pick(VERBS)} the {pick(NOUNS)} of the {pick(NOUNS)} {i} {seed}" for i in range(sentences)
    ]
    return ". ".join(said) + "."


def changed(text: str, every: int) -> str:
    """The text with each so-manieth word another one."""
    return " ".join("elsewhere" if i % every == every - 1 else word for i, word in enumerate(text.split()))


CONTEXTS = [passage(f"squad{i}") for i in range(5)]
QUESTIONS = [{"question": "Which river?", "answers": []}]
SQUAD = {"data": [{"title": "Rivers", "paragraphs": [{"context": text, "qas": QUESTIONS} for text in CONTEXTS]}]}
TEXTS = [passage(i) for i in range(40)]
NEAR = [changed(TEXTS[3], 60), changed(TEXTS[3], 70), TEXTS[11].upper().replace(".", " -")]
FAR = [changed(TEXTS[5], 3)]


@pytest.fixture
def squad(tmp_path) -> str:
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD))
    return f"squad={tmp_path / 'dev.json'}"


def keys(texts: list[str]) -> np.ndarray:
    return band_keys([WordHashes()(text) for text in texts])


def as_sets(texts: list[str], label: np.ndarray) -> set[frozenset[str]]:
    return {frozenset(np.array(texts, object)[label == one]) for one in set(label.tolist())}


def test_near_duplicate_groups_do_not_depend_on_the_order():
    texts = TEXTS + NEAR + FAR + ["", "one", "One!", "two"]
    wanted = as_sets(texts, groups(keys(texts)))
    assert {frozenset({TEXTS[3], *NEAR[:2]}), frozenset({TEXTS[11], NEAR[2]}), frozenset({"one", "One!"})} <= wanted
    assert len(wanted) == len(texts) - 4
    for seed in range(5):
        random.Random(seed).shuffle(texts)
        assert as_sets(texts, groups(keys(texts))) == wanted


def test_a_group_is_all_that_is_linked():
    chain = np.arange(40, dtype=np.uint64).reshape(20, 2)
    chain[1:, 0] = chain[:-1, 1]  # a link of two bands each
    chain[:, 1] = np.roll(chain[:, 0], -1)
    chain[1::2] = chain[1::2, ::-1]
    assert set(groups(np.concatenate([chain, chain + np.uint64(1000)])).tolist()) == {0, 20}


def test_of_a_group_the_first_by_its_id_stays():
    bands = keys([TEXTS[3], NEAR[0], TEXTS[4], NEAR[1]])
    copy, count = copies(bands, np.array([7, 3, 1, 5]))
    assert copy.tolist() == [True, False, False, True] and count == 1


def test_a_share_of_runs_of_words_makes_a_near_duplicate():
    """The probability that the bands promise, of documents with a known share of runs."""
    rng = np.random.default_rng(0)
    found = {}
    for share in (0.4, 0.9):
        pairs = []
        for _ in range(60):
            words = rng.integers(0, 2**63, 400, dtype=np.uint64)
            other = words.copy()
            # A run of words replaced at the end: of 396 runs of five a share stays in both.
            cut = round(400 * (1 - 2 * share / (1 + share)))
            other[400 - cut :] = rng.integers(0, 2**63, cut, dtype=np.uint64)
            pairs += [words, other]
        label = groups(band_keys(pairs))
        found[share] = float(np.mean(label[1::2] == label[::2]))
    assert found[0.4] < 0.1 and found[0.9] > 0.95


def test_runs_of_words_without_case_and_punctuation():
    hashes = WordHashes()
    one, other = hashes("The \ufb01ne Cat, sat--on  it."), hashes("the fine CAT\nsat on it")
    assert one.tolist() == other.tolist() and len(one) == 6
    assert len(ngrams(one, 6)) == 1 and len(ngrams(one, 7)) == 0
    assert ngrams(one, 3)[0] != ngrams(one[::-1], 3)[-1]  # the order counts


@pytest.mark.parametrize(
    "text",
    [
        "हिन्दी में बोलते हैं",
        "বাংলা ভাষায় কথা বলে",
        "தமிழ் மொழியில் பேசுகிறார்கள் மக்கள்",
        "ผู้หญิง อ่าน หนังสือ ที่นี่",
        "كَتَبَ الوَلَدُ الدَّرْسَ اليَوْمَ",
        "בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת",
        "İstanbul café 𑄇𑄮𑄧𑄢𑄴 a_1",
    ],
)
def test_words_of_any_script_keep_their_marks(text):
    assert len(hashes := WordHashes()(text)) == 4
    for form in ("NFC", "NFD"):
        assert WordHashes()(f"({unicodedata.normalize(form, text)})!").tolist() == hashes.tolist()
    bare = "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char)[0] != "M")
    assert WordHashes()(bare).tolist() != hashes.tolist()


def test_texts_without_words_are_near_duplicates_only_where_they_are_the_same():
    label = groups(keys(["* * *", "---", "?!", "* * *", "", "one"]))
    assert label.tolist() == [0, 1, 2, 0, 4, 5]


def test_an_evaluation_set_behind_a_link_to_a_directory_is_read(squad, tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "squad").symlink_to(tmp_path, target_is_directory=True)
    assert [path.name for path in files_of(str(tmp_path / "sets"))] == ["dev.json"]


def test_a_planted_passage_is_found_and_one_of_the_same_topic_is_not(squad):
    marker = Marker(Clean(evaluation_sets=(squad,)))
    assert [(one.name, one.n, one.passages) for one in marker.sets] == [("squad", 13, 5)]
    context = CONTEXTS[2]
    words = context.split()
    texts = [
        f"{TEXTS[0]} {context} {TEXTS[1]}",
        context.lower().replace(" ", "\n"),
        " ".join(words[10:23]),  # just 13 words of it
        " ".join(words[10:22]),
        changed(context, 12),  # its words and its topic
        TEXTS[0],
    ]
    marks = marker(texts)
    assert marks.documents["sets"].tolist() == [1, 1, 1, 0, 0, 0]
    found = np.zeros(marker.runs, bool)
    found[marks.found[2]] = True
    assert found.sum() == 1 and marker.table(found, [1])[0] | {"words": 0} == {
        **{"set": "squad", "words": 0, "passages": 5, "touched": 1, "found": 0, "documents": 1},
    }
    found[marks.found[0]] = True
    assert marker.table(found, [2])[0]["found"] == 1


@pytest.mark.parametrize(
    ("name", "raw", "n", "passages"),
    [
        ("dev.tsv", 'id\ttext\tlabel\n1\t"{0}\t0\n2\t{1}\t1\n', 13, 2),
        ("blimp.jsonl", '{{"sentence_good": "{2}", "UID": "a"}}\n', 9, 1),
        ("mine.txt", "{0}\n\n{1}\n\nshort\n", 13, 2),
        ("a.csv", 'text\n"{0}"\n', 13, 1),
        ("lines.csv", 'text\n"the cats\nnear the river\nwere seen\nby us"\n', 9, 1),
    ],
)
def test_the_files_of_tasks(tmp_path, name, raw, n, passages):
    short = "the cats near the river were seen by us"
    (tmp_path / name).write_text(raw.format(passage("a", 2), passage("b", 2), short))
    found = read(str(tmp_path))
    assert (found.name, found.n, found.passages) == (tmp_path.name, n, passages)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_passage_may_be_longer_than_a_field_of_the_library(tmp_path, name):
    long = passage("long", 4000)
    (tmp_path / name).write_text(f"text\n{long}\n")
    before = csv.field_size_limit(1 << 17)
    try:
        assert len(long) > 1 << 17 and read(str(tmp_path)).passages == 1
    finally:
        csv.field_size_limit(before)


def source(texts: list[str], each: int) -> TextSource:
    made = [
        Group(lambda at=at: (Document(texts[i], i, 0, i) for i in range(at, min(at + each, len(texts)))), each)
        for at in range(0, len(texts), each)
    ]
    return TextSource(made, [{"file": "mine"}])


def contents(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("contaminated", ["drop", "count"])
def test_a_store_without_them_on_any_number_of_machines(tmp_path, monkeypatch, squad, contaminated):
    monkeypatch.setattr(parts, "PART", 3000)
    planted = [f"{passage('x')} {CONTEXTS[1]}", CONTEXTS[4]]
    texts = [*NEAR[1:], *TEXTS, NEAR[0], *planted, *FAR, TEXTS[7], changed(planted[0], 100)]
    clean = Clean(near_duplicates=True, evaluation_sets=(squad,), contaminated=contaminated)
    data = Data(text="mine", vocab=60, valid=0.3, length=16, drop_duplicates=True, clean=clean)
    build(tmp_path / "one", data, [source(texts, 1000)], workers=1)
    store = Store(tmp_path / "one")
    said = store.manifest["cleaning"]
    dropped = 2 if contaminated == "drop" else 0
    near = 3 if contaminated == "drop" else 4
    row = {"set": "squad", "words": 13, "passages": 5, "touched": 2, "found": 2, "documents": 3}
    assert said["evaluation_sets"] == [row] and store.manifest["duplicates"] == 1
    assert said.get("contaminated", 0) == dropped + (1 if contaminated == "drop" else 0)
    left = {int(number) for split in ("train", "valid") for number in store.documents(split)["number"]}
    gone = {texts.index(NEAR[0]), texts.index(TEXTS[3]), texts.index(TEXTS[11]), texts.index(TEXTS[7], 20)}
    gone |= {len(texts) - 1}
    if contaminated == "drop":
        gone |= {texts.index(text) for text in planted}
    assert left == set(range(len(texts))) - gone and said["near_duplicates"] == near
    for machines, each in ((2, 10), (3, 1000), (5, 7)):
        directory = tmp_path / f"{machines}"
        for machine in reversed(range(machines)):
            build(directory, data, [source(texts, each)], workers=2, shard=(machine, machines))
        merged = merge(directory, data)
        for split in ("train", "valid"):
            assert np.array_equal(merged.documents(split), store.documents(split))
            one, many = (sorted(made.directory.glob(f"{split}-*.bin")) for made in (store, merged))
            assert b"".join(path.read_bytes() for path in many) == b"".join(path.read_bytes() for path in one)
        assert merged.manifest["cleaning"] == said


def test_killed_and_resumed_it_is_the_same(tmp_path, monkeypatch, squad):
    monkeypatch.setattr(parts, "PART", 3000)
    clean = Clean(near_duplicates=True, evaluation_sets=(squad,))
    data = Data(text="mine", vocab=60, valid=0.3, length=16, clean=clean)
    texts = TEXTS + NEAR
    build(tmp_path / "one", data, [source(texts, 1000)], workers=1)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxmlm.data.merging.write_manifest", killed)  # after some files were rewritten
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "two", data, [source(texts, 1000)], workers=1)
    part = tmp_path / "two.part"
    for ending in (".marks", ".found"):
        build(tmp_path / "two", data, [source(texts, 1000)], workers=1)
        assert contents(tmp_path / "two") == contents(tmp_path / "one")
        (tmp_path / "two").rename(tmp_path / f"two{ending}")
        build(tmp_path / "two", data, [source(texts, 1000)], workers=1, shard=(0, 1))
        damaged = next(iter(sorted(part.glob(f"*{ending}"))))
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x55")
    build(tmp_path / "two", data, [source(texts, 1000)], workers=1)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_the_options_and_the_sets_are_part_of_the_fingerprint(tmp_path, squad):
    plain = Data(text="mine")
    one = replace(plain, clean=Clean(evaluation_sets=(squad,)))
    then = one.content()
    assert "clean" not in plain.content() and then["clean"]["evaluation_sets"][0]["set"] == "squad"
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD).replace("river", "lake"))
    assert one.content() != then
    assert "min_hash" in replace(plain, clean=Clean(near_duplicates=True)).content()["clean"]


def test_the_command_says_what_it_did(tmp_path, capsys, squad):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS + NEAR + [CONTEXTS[0]]))
    words = ["--data.text", str(tmp_path / "a.txt"), "--data.store", str(tmp_path / "store"), "--data.vocab", "60"]
    words += ["--data.length", "16", "--loop.batch", "2", "--data.valid", "0.3"]
    words += ["--data.clean.near-duplicates", "--data.clean.evaluation-sets", squad]
    assert cli.main(["prepare", "configs/quickstart_run.py", *words]) == 0
    said = capsys.readouterr().err
    assert "squad                   13         5        1       1             1" in said
    assert "documents with words of evaluation sets: 1 dropped" in said
    assert "near duplicates: 3 documents of 2 groups dropped" in said


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("none.json", None, "no file that ends in .json, .*none.json"),
        ("a.json", "{", "a.json cannot be read as an evaluation set"),
        ("a.txt", "too short", "no text of 8 words or more in"),
        ("a.parquet", "x", "no file that ends in"),
    ],
)
def test_evaluation_sets_that_are_none(tmp_path, name, raw, message):
    if raw is not None:
        (tmp_path / name).write_text(raw)
    with pytest.raises(InputError, match=message):
        Marker(Clean(evaluation_sets=(str(tmp_path / name),)))


def test_options_that_cannot_be(monkeypatch):
    with pytest.raises(InputError, match="two of data.clean.evaluation_sets are called squad: write NAME=PATH"):
        Clean(evaluation_sets=("squad", "squad=x"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape(f"needs rensa: {install_command('clean')}")):
        Clean(near_duplicates=True)
