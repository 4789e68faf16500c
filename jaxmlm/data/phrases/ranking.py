"""The phrase list of PMI masking: word n-grams that occur together far more often than chance.

`ngrams.count` counts them, `tabulate` writes the counts out, `merge` adds those of several parts of a corpus, `rank`
scores them by the PMI of Levine et al. (2021, arXiv 2010.01825), `choose` keeps the best of each length;
`matching.match` finds them again in text.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as parquet
from jaxtyping import Bool

from jaxmlm.data.phrases.config import Phrases
from jaxmlm.data.phrases.ngrams import Ngrams, score
from jaxmlm.errors import InputError, reading
from jaxmlm.textfiles import read_text

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers cannot know
LONGEST = 16
"""Number of words in the longest phrases that there can be."""
UNPACKED = 1 << 28
"""Bytes in memory that any table may have, however small it is on disk."""
_TYPES = {"n": pa.int8(), "phrase": pa.string(), "count": pa.int64(), "score": pa.float64()}


def tabulate(ngrams: Ngrams, words: pa.StringArray) -> pa.Table:
    """Counts as a table (n, phrase, count); the row of an empty phrase holds the windows of that length.

    Such tables of the parts of a corpus add up: sum(count) by (n, phrase).

    >>> from jaxmlm.data.phrases.ngrams import count
    >>> table = tabulate(count([np.array([0, 1, 0, 1], np.int32)], longest=2, least=2), pa.array(["new", "york"]))
    >>> [tuple(row.values()) for row in table.to_pylist()]
    [(1, '', 4), (1, 'new', 2), (1, 'york', 2), (2, '', 3), (2, 'new york', 2)]
    """
    phrase = last = words.take(pa.array(ngrams.prefix[0]))
    parts = []
    for n, times in enumerate(ngrams.counts, start=1):
        if n > 1:
            last = last.take(pa.array(ngrams.suffix[n - 1]))
            phrase = pc.binary_join_element_wise(phrase.take(pa.array(ngrams.prefix[n - 1])), last, " ")
        columns = (
            pa.array(np.full(len(times) + 1, n, np.int8)),
            pa.concat_arrays([pa.array([""]), phrase]),
            pa.array(np.concatenate([ngrams.totals[n - 1 : n], times])),
        )
        parts.append(pa.table(dict(zip(("n", "phrase", "count"), columns, strict=True))))
    return pa.concat_tables(parts).combine_chunks()


MERGE = """
SELECT n, phrase, CAST(SUM(count) AS BIGINT) AS count FROM read_parquet({files})
GROUP BY n, phrase HAVING SUM(count) >= {min_count} OR phrase = '' ORDER BY n, phrase
"""


def merge(files: Sequence[Path], out: Path, min_count: int = 11) -> None:
    """Add up tables of counts (Parquet) and keep the n-grams that occur `min_count` times or more in all.

    With DuckDB (extra `phrases`) the tables may be larger than memory.
    """
    if not files:
        raise InputError("no tables of counts to merge: give at least one .parquet file")
    for file in files:
        _columns(file, ("n", "phrase", "count"))
    if importlib.util.find_spec("duckdb"):
        import duckdb

        names = "[" + ", ".join("'" + str(file).replace("'", "''") + "'" for file in files) + "]"
        with duckdb.connect() as connection:
            target = str(out).replace("'", "''")
            query = MERGE.format(files=names, min_count=min_count)
            connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet)")
        return
    total = _table(files[0], ("n", "phrase", "count")).select(["n", "phrase", "count"])
    for file in files[1:]:
        more = _table(file, ("n", "phrase", "count")).select(["n", "phrase", "count"])
        total = pa.concat_tables([total, more])
        total = total.group_by(["n", "phrase"]).aggregate([("count", "sum")]).rename_columns(["n", "phrase", "count"])
    total = total.filter(pc.or_(pc.greater_equal(total["count"], min_count), pc.equal(total["phrase"], "")))
    parquet.write_table(total.sort_by([("n", "ascending"), ("phrase", "ascending")]), out)


def rank(counts: pa.Table, config: Phrases) -> pa.Table:
    """The n-grams of a table of counts, with their PMI: (n, phrase, count, score), best first within a length.

    >>> from jaxmlm.data.phrases.ngrams import count
    >>> counts = tabulate(count([np.array([0, 1, 2, 0, 1], np.int32)], 2, 1), pa.array(["new", "york", "in"]))
    >>> rank(counts, Phrases(longest=2, min_count=1, shares=(1.0,)))["phrase"].to_pylist()
    ['new york', 'in new', 'york in']
    """
    ngrams, text = _parse(counts, config)
    columns = {"n": [], "phrase": text[1:], "count": ngrams.counts[1:], "score": score(ngrams, config.pmi_power)[1:]}
    columns["n"] = [np.full(len(times), n, np.int8) for n, times in enumerate(columns["count"], start=2)]
    table = pa.table({name: pa.chunked_array([pa.array(part) for part in parts]) for name, parts in columns.items()})
    return table.sort_by([("n", "ascending"), ("score", "descending"), ("phrase", "ascending")]).combine_chunks()


def choose(
    ranked: pa.Table, config: Phrases, coverage: Callable[[Bool[np.ndarray, "..."]], float]
) -> tuple[pa.Table, dict[str, int]]:
    """The best of each length by `shares`: `number` phrases, or as few as give the `coverage` that is wanted.

    `coverage` tells the share of the tokens that these rows cover. Returns the list and the lengths whose quota ran
    short, with the phrases that are missing. The other lengths are not made larger for it.
    """
    n = ranked["n"].to_numpy()
    if not len(n):
        raise InputError(
            f"no two words stand together {config.min_count} times in this text: set data.phrases.min_count lower, or "
            "give more text"
        )
    shares = np.asarray(config.shares)
    place = np.arange(len(n)) - np.searchsorted(n, n) + 1  # 1 is the best of its length
    enters = np.ceil(place / shares[n - 2] - 1e-9)  # the smallest list that has room for it
    number = config.size
    if number is None:
        low = 0
        number = int(enters.max())
        while number - low > max(1, number // 1000):  # a thousandth of the list decides nothing
            middle = (low + number) // 2
            if coverage(enters <= middle) < (config.coverage or 0):
                low = middle
            else:
                number = middle
    taken = enters <= number
    have = np.bincount(n[taken], minlength=config.longest + 1)[2:]
    missing = np.floor(shares * number + 1e-9).astype(int) - have
    short = {str(words): int(many) for words, many in enumerate(missing, start=2) if many > 0}
    return ranked.filter(pa.array(taken)), short


def read(path: Path, config: Phrases) -> pa.Table:
    """A list of phrases: a text file of one a line, or Parquet (a list, or counts, which `rank` must score yet)."""
    if not path.is_file():
        raise InputError(f"no phrase list at {path}: give a text file of one phrase a line, or a .parquet file")
    if path.suffix.lower() == ".parquet":
        table = _table(path, ("n", "phrase"))
        names = table.column_names
        if not pc.any(pc.greater(table["n"], 1)).as_py():
            raise InputError(f"the phrase list {path} is empty: give one with phrases of two words or more")
        return table if "score" in names or "count" in names else table.select(["n", "phrase"])
    phrases = list(dict.fromkeys(" ".join(line.split()) for line in read_text(path).split("\n")))
    phrases = [phrase for phrase in phrases if " " in phrase]
    if not phrases:
        raise InputError(f"the phrase list {path} is empty: give one with a phrase of two words or more a line")
    words = np.array([phrase.count(" ") + 1 for phrase in phrases], np.int32)
    return pa.table({"n": pa.array(words), "phrase": pa.array(phrases)})


def _parse(counts: pa.Table, config: Phrases) -> tuple[Ngrams, list[pa.Array]]:
    """The n-grams of a table of counts, and their text by length."""
    ngrams = Ngrams([], [], [], [])
    text = []
    for n in range(1, config.longest + 1):
        rows = counts.filter(pc.equal(counts["n"], n))
        total = rows.filter(pc.equal(rows["phrase"], ""))["count"]
        rows = rows.filter(pc.and_(pc.not_equal(rows["phrase"], ""), pc.greater_equal(rows["count"], config.min_count)))
        phrase = rows["phrase"].combine_chunks()
        ends = [np.arange(len(phrase), dtype=np.int32)] * 2
        if n > 1:
            cut = (pc.replace_substring_regex(phrase, end, "") for end in (" [^ ]*$", "^[^ ]* "))
            ends = [pc.index_in(part, text[-1]) for part in cut]
            if len(total) != 1 or any(part.null_count for part in ends):
                raise InputError(
                    f"the table of counts is not whole: phrases of {n} words have parts, or a total, that it does not "
                    "hold: count every part of the corpus from words to the longest phrases"
                )
            ends = [part.to_numpy() for part in ends]
        ngrams.totals.append(total[0].as_py() if len(total) else 0)
        ngrams.counts.append(rows["count"].to_numpy())
        ngrams.prefix.append(ends[0])
        ngrams.suffix.append(ends[1])
        text.append(phrase)
    return ngrams, text


def _table(path: Path, wanted: Sequence[str]) -> pa.Table:
    """A table of phrases that somebody else may have made: its columns have their types, and no value is missing.

    It is read a few rows at a time: a column of one value repeated is small on disk and may be too large in memory.
    """
    columns = [name for name in _TYPES if name in _columns(path, wanted)]
    with reading(path, "Parquet"):
        most = UNPACKED + 100 * path.stat().st_size
        batches = []
        for batch in parquet.ParquetFile(path).iter_batches(4096, columns=columns):
            batch.validate(full=True)
            most -= batch.nbytes
            if most < 0:
                raise ValueError("it is more than 100 times as large in memory as on disk")
            batches.append(batch)
        table = pa.Table.from_batches(batches, schema=pa.schema([_field(path, name) for name in columns]))
        table = table.cast(pa.schema([(name, _TYPES[name]) for name in columns]))
        for name in columns:
            if table[name].null_count:
                raise ValueError(f"values of the column {name!r} are missing")
        lengths = pc.min_max(table["n"]).as_py()
        if len(table) and not 1 <= lengths["min"] <= lengths["max"] <= LONGEST:
            raise ValueError(f"phrases of {lengths['min']} to {lengths['max']} words")
        words = pc.add(pc.count_substring(table["phrase"], " "), 1)
        if len(table) and not pc.all(pc.or_(pc.equal(words, table["n"]), pc.equal(table["phrase"], ""))).as_py():
            raise ValueError("the column 'n' is not the number of words of each phrase")
    return table


def _field(path: Path, name: str) -> pa.Field:
    return parquet.read_schema(path).field(name)


def _columns(path: Path, wanted: Sequence[str]) -> list[str]:
    with reading(path, "Parquet"):
        names = parquet.read_schema(path).names
    if lacking := [name for name in wanted if name not in names]:
        raise InputError(f"{path} has no column {lacking[0]!r}, only {', '.join(names)[:200]}: give a table of phrases")
    return names
