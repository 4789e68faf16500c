"""The phrase list: counts, scores, quotas and matches against slow plain Python; lists that do not fit are refused."""

import importlib.util
import itertools
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxmlm.data.phrases import matching, ngrams
from jaxmlm.data.phrases.matching import covered, find, match, trie
from jaxmlm.data.phrases.ngrams import count
from jaxmlm.data.phrases.ranking import Phrases, choose, merge, rank, read, tabulate
from jaxmlm.errors import InputError

ENGINES = ["pyarrow", *(["duckdb"] if importlib.util.find_spec("duckdb") else [])]
LETTERS = pa.array(list("abcde"))
STREAMS = st.lists(st.lists(st.integers(-1, 3), max_size=40), min_size=1, max_size=3)
# Few words, so that phrases repeat and overlap; with a number of one out of three words twice as often.
TEXT = st.lists(st.sampled_from([-1, 0, 0, 1, 1, 2]), max_size=40)
LISTS = st.lists(st.text("abc", min_size=2, max_size=5).map(" ".join), min_size=1, max_size=12, unique=True)


def arrays(streams: list[list[int]]) -> list[np.ndarray]:
    return [np.array(stream, np.int32) for stream in streams]


def counted(streams: list[list[int]], longest: int, least: int) -> dict[tuple[int, str], int]:
    """The counts in plain Python: no pruning, no blocks."""
    times: Counter[tuple[int, str]] = Counter()
    for n in range(1, longest + 1):
        total = 0
        for stream in streams:
            for window in (stream[i : i + n] for i in range(len(stream) - n + 1)):
                if -1 not in window:
                    times[n, " ".join("abcde"[word] for word in window)] += 1
                    total += 1
        times[n, ""] = total
    return {key: many for key, many in times.items() if many >= least or key[1] == ""}


def plain(table: pa.Table) -> dict[tuple[int, str], int]:
    rows = table.to_pylist()
    assert len({(row["n"], row["phrase"]) for row in rows}) == len(rows)
    return {(row["n"], row["phrase"]): row["count"] for row in rows}


@settings(max_examples=150, deadline=None)
@given(STREAMS, st.integers(2, 5), st.integers(1, 4), st.sampled_from([1, 3, 1 << 25]))
def test_counts_are_those_of_plain_python(streams, longest, least, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_BLOCK", block)
        assert plain(tabulate(count(arrays(streams), longest, least), LETTERS)) == counted(streams, longest, least)


def pmi(phrase: str, times: dict[tuple[int, str], int], power: int) -> float:
    """The minimum over all segmentations, one by one."""
    words = phrase.split()

    def log(part: list[str]) -> float:
        return math.log(times[len(part), " ".join(part)] / times[len(part), ""])

    scores = []
    for cuts in itertools.product([False, True], repeat=len(words) - 1):
        if any(cuts):
            places = [0, *(i for i, cut in enumerate(cuts, start=1) if cut), len(words)]
            scores.append(power * log(words) - sum(log(words[a:b]) for a, b in itertools.pairwise(places)))
    return min(scores)


def config(longest: int = 5, **options) -> Phrases:
    return Phrases(longest=longest, shares=(1 / (longest - 1),) * (longest - 1), **options)


@settings(max_examples=100, deadline=None)
@given(STREAMS, st.integers(2, 5), st.integers(1, 3), st.sampled_from([1, 2]))
def test_scores_are_the_minimum_over_all_segmentations(streams, longest, least, power):
    table = tabulate(count(arrays(streams), longest, least), LETTERS)
    rows = rank(table, config(longest, min_count=least, pmi_power=power)).to_pylist()
    times = counted(streams, longest, least)
    assert {(row["n"], row["phrase"]) for row in rows} == {key for key in times if key[0] > 1 and key[1]}
    for row in rows:
        assert row["count"] == times[row["n"], row["phrase"]]
        assert row["score"] == pytest.approx(pmi(row["phrase"], times, power), abs=1e-9)
    assert [row["n"] for row in rows] == sorted(row["n"] for row in rows)
    for a, b in itertools.pairwise(rows):
        assert a["n"] < b["n"] or (-a["score"], a["phrase"]) < (-b["score"], b["phrase"])


def test_a_score_by_hand():
    """new york city: 3 times in 12 windows of one word and so on; the best cut is "new york | city"."""
    times = {"new": 4, "york": 4, "city": 4, "new york": 4, "york city": 3, "new york city": 3}
    rows = [(1, "", 20), (2, "", 16), (3, "", 12), *((name.count(" ") + 1, name, k) for name, k in times.items())]
    table = pa.table(dict(zip(("n", "phrase", "count"), map(list, zip(*rows, strict=True)), strict=True)))
    scores = {row["phrase"]: row["score"] for row in rank(table, config(3, min_count=1, pmi_power=1)).to_pylist()}
    assert scores["new york"] == pytest.approx(math.log((4 / 16) / (4 / 20) ** 2))
    assert scores["new york city"] == pytest.approx(math.log((3 / 12) / ((4 / 16) * (4 / 20))))
    twice = {row["phrase"]: row["score"] for row in rank(table, config(3, min_count=1, pmi_power=2)).to_pylist()}
    assert twice["new york city"] == pytest.approx(scores["new york city"] + math.log(3 / 12))


def settled(text: list[int], phrases: list[str], overlap: str, offset: int) -> list[bool]:
    """Where units begin, one occurrence after another."""
    listed = {tuple(phrase.split()) for phrase in phrases}
    words = ["abc"[word] if word >= 0 else None for word in text]
    places = [
        (i, n) for n in range(2, 6) for i in range(len(words) - n + 1) if tuple(words[i : i + n]) in listed
    ]  # fmt: skip
    if overlap == "random":

        def inside(a, b):
            return a != b and b[0] <= a[0] and a[0] + a[1] <= b[0] + b[1]

        places = [a for a in places if not any(inside(a, b) for b in places)]
        turn = matching._mixed(np.array([offset + i for i, _ in places]))
        places = [places[i] for i in np.argsort(turn, kind="stable")]
    else:
        places.sort(key=lambda place: (-place[1], place[0]))
    begins, taken = [True] * len(words), set()
    for i, n in places:
        if not taken & set(range(i, i + n)):
            taken |= set(range(i, i + n))
            begins[i + 1 : i + n] = [False] * (n - 1)
    return begins


def begins_of(text: list[int], phrases: list[str], overlap: str, offset: int = 0) -> list[bool]:
    lists = trie(pa.array(phrases))
    ids = [lists.words.to_pylist().index("abc"[word]) if word >= 0 and "abc"[word] in lists.words.to_pylist() else -1
           for word in text]  # fmt: skip
    return match(find(lists, np.array(ids, np.int32)), len(text), overlap, offset).tolist()


@settings(max_examples=300, deadline=None)
@given(TEXT, LISTS, st.sampled_from(["random", "longest"]), st.integers(0, 2**40))
@example([0, 1, 2], ["a b c", "b c"], "random", 0)  # the inner one would be taken first
def test_units_are_those_of_plain_python(text, phrases, overlap, offset):
    assert begins_of(text, phrases, overlap, offset) == settled(text, phrases, overlap, offset)


@settings(max_examples=100, deadline=None)
@given(TEXT, TEXT, LISTS, st.sampled_from(["random", "longest"]))
def test_a_text_cut_at_a_break_has_the_units_of_the_whole(one, two, phrases, overlap):
    whole = begins_of([*one, -1, *two], phrases, overlap)
    assert whole == begins_of([*one, -1], phrases, overlap) + begins_of(two, phrases, overlap, len(one) + 1)


def test_overlaps():
    text, way = [0, 1, 2, 0, 1], ["a b c", "b c a", "a b"]
    assert begins_of(text, way, "longest") == [True, False, False, True, False]
    both = {tuple(begins_of(text, way[:2], "random", offset)) for offset in range(20)}
    assert both == {(True, False, False, True, True), (True, True, False, False, True)}
    # The list holds "a b" too: it is within "a b c" at the start, and free at the end only if "a b c" is taken.
    both = {tuple(begins_of(text, way, "random", offset)) for offset in range(40)}
    assert (True, False, False, True, False) in both and (False in next(iter(both)))
    assert covered(np.array(begins_of([0, 1, 2, 0], ["b c"], "random"))).tolist() == [False, True, True, False]


def test_each_of_two_that_overlap_is_taken_about_half_of_the_time():
    text, lists = [0, 1, 2, -1] * 4000, trie(pa.array(["a b", "b c"]))
    ids = np.array([*map(lists.words.to_pylist().index, "abc"), -1], np.int32)[text]
    first = ~match(find(lists, ids), len(text))[1::4]
    assert abs(first.mean() - 0.5) < 0.04  # five standard deviations


def test_a_long_chain_of_overlaps_ends_soon():
    """A word that repeats a million times: whole arrays in few rounds, not one round a unit."""
    lists = trie(pa.array(["a a a", "a a"]))
    for overlap in ("random", "longest"):
        begins = match(find(lists, np.zeros(1_000_001, np.int32)), 1_000_001, overlap)
        sizes = np.diff(np.append(np.flatnonzero(begins), len(begins)))
        assert set(sizes.tolist()) <= {1, 2, 3} and begins[0]
        if overlap == "longest":
            assert (sizes[:-1] == 3).all() and sizes[-1] == 2


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=10, deadline=None)
@given(STREAMS, st.integers(2, 4), st.integers(1, 4))
def test_counts_of_parts_add_up(tmp_path_factory, engine, streams, longest, least):
    directory = tmp_path_factory.mktemp("it's")
    for i, stream in enumerate(arrays(streams)):
        parquet.write_table(tabulate(count([stream], longest, 1), LETTERS), directory / f"{i}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        if engine == "pyarrow":
            patch.setattr(importlib.util, "find_spec", lambda name: None)
        merge(sorted(directory.iterdir()), directory / "all.parquet", least)
    assert plain(parquet.read_table(directory / "all.parquet")) == counted(streams, longest, least)


def test_tables_that_do_not_add_up(tmp_path):
    table = tabulate(count(arrays([[0, 1, 0, 1]]), 2, 1), LETTERS)
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no tables of counts"):
        merge([], tmp_path / "out.parquet")
    parquet.write_table(table.drop_columns(["count"]), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet has no column 'count', only n, phrase"):
        merge([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def ranked(**of_length: int) -> pa.Table:
    """So many phrases of each length, best first."""
    rows = [(int(n[1]), f"{n}-{i}") for n, many in of_length.items() for i in range(many)]
    n, phrase = zip(*rows, strict=True)
    return pa.table({"n": pa.array(n, pa.int8()), "phrase": list(phrase)})


def test_quotas_by_number_and_those_that_run_short():
    table = ranked(n2=100, n3=100, n4=4, n5=100)
    chosen, short = choose(table, Phrases(size=80), lambda taken: 0.0)
    assert Counter(chosen["n"].to_pylist()) == {2: 40, 3: 20, 4: 4, 5: 10} and short == {"4": 6}
    assert chosen["phrase"].to_pylist()[40:60] == [f"n3-{i}" for i in range(20)]  # the best, in order
    chosen, short = choose(table, Phrases(size=80, shares=(0.7, 0.1, 0.1, 0.1)), lambda taken: 0.0)
    assert Counter(chosen["n"].to_pylist()) == {2: 56, 3: 8, 4: 4, 5: 8} and short == {"4": 4}


@pytest.mark.parametrize("wanted", [0.01, 0.25, 0.5, 0.9])
def test_size_by_coverage(wanted):
    table = ranked(n2=1000, n3=500, n4=250, n5=250)
    chosen, short = choose(table, Phrases(coverage=wanted), lambda taken: float(taken.mean()))
    assert len(chosen) / 2000 == pytest.approx(wanted, abs=0.003) and short == {}
    assert len(chosen) / 2000 >= wanted
    assert Counter(chosen["n"].to_pylist())[2] == pytest.approx(len(chosen) / 2, abs=1)


def test_a_coverage_that_is_out_of_reach_takes_all():
    chosen, short = choose(ranked(n2=100, n3=100, n4=4, n5=100), Phrases(), lambda taken: 0.3 * taken.mean())
    assert len(chosen) == 304 and short == {"2": 300, "3": 100, "4": 96}
    with pytest.raises(InputError, match="no two words stand together 11 times"):
        choose(ranked(n2=1).slice(1), Phrases(), lambda taken: 0.0)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("longest", {"longest": 1}),
        ("shares", {"longest": 4}),
        ("shares", {"shares": (0.5, 0.25, 0.125, 0.1)}),
        ("shares", {"shares": (0.5, 0.5, 0.25, -0.25)}),
        ("min_count", {"min_count": 0}),
        ("size", {"size": 0}),
        ("coverage", {"coverage": 0.0}),
        ("coverage", {"coverage": math.nan}),
        ("coverage", {"coverage": None}),
    ],
)
def test_settings_out_of_range(field, options):
    with pytest.raises(InputError, match=rf"phrases(\.{field} (must|is .*: it must)|: give {field})"):
        Phrases(**options)


def test_a_published_list_is_read(tmp_path):
    (tmp_path / "pmi.txt").write_text("new york\r\nthe united states\n\nnew  york\nalone\nsão paulo\n", "utf-8")
    assert [tuple(row.values()) for row in read(tmp_path / "pmi.txt", Phrases()).to_pylist()] == [
        (2, "new york"), (3, "the united states"), (2, "são paulo"),
    ]  # fmt: skip


LIST = "são paulo\nold hen\nthe united states\n"


@pytest.mark.parametrize(
    "raw",
    [
        LIST.encode(),
        *(LIST.replace("\n", end).encode("utf-8-sig") for end in ("\n", "\r\n", "\r", "\r\r\n")),
        "são paulo\r".encode("utf-8-sig") + "old hen\nthe united\u00a0states".encode("utf-8-sig"),  # two files joined
    ],
)
def test_a_list_of_any_system_is_read(tmp_path, raw):
    (tmp_path / "list.txt").write_bytes(raw)
    assert read(tmp_path / "list.txt", Phrases())["phrase"].to_pylist() == ["são paulo", "old hen", "the united states"]


@pytest.mark.parametrize("text", ["", "\n \n", "alone\n"])
def test_an_empty_list_is_refused(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match="list.txt is empty"):
        read(tmp_path / "list.txt", Phrases())
    parquet.write_table(words_only(text.split()), tmp_path / "list.parquet")
    with pytest.raises(InputError, match="list.parquet is empty"):
        read(tmp_path / "list.parquet", Phrases())


def words_only(phrases: list[str]) -> pa.Table:
    return pa.table({"n": pa.array([1] * len(phrases), pa.int8()), "phrase": pa.array(phrases, pa.string())})


def test_files_that_are_no_list(tmp_path):
    with pytest.raises(InputError, match="no phrase list at"):
        read(tmp_path / "none.txt", Phrases())
    (tmp_path / "latin.txt").write_bytes("são paulo\n".encode("latin-1"))
    with pytest.raises(InputError, match="latin.txt is not UTF-8 text"):
        read(tmp_path / "latin.txt", Phrases())
    (tmp_path / "wide.txt").write_bytes("old hen\n".encode("utf-16-le"))
    with pytest.raises(InputError, match="wide.txt is not UTF-8 text"):
        read(tmp_path / "wide.txt", Phrases())
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="cut.parquet cannot be read as Parquet"):
        read(tmp_path / "cut.parquet", Phrases())
    table = tabulate(count(arrays([[0, 1, 2, 0, 1, 2]]), 3, 1), LETTERS)
    lacking = table.filter(pa.array([row["phrase"] != "a b" for row in table.to_pylist()]))
    with pytest.raises(InputError, match="the table of counts is not whole: phrases of 3 words"):
        rank(lacking, config(3, min_count=1))
