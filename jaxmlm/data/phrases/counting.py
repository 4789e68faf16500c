"""The phrase pass over a token store: which phrases there are, and beside each token where units start."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as parquet

from jaxmlm.data import Store
from jaxmlm.data.files import sha256
from jaxmlm.data.manifest import PHRASES_FILE, units_of
from jaxmlm.data.phrases.config import Phrases
from jaxmlm.data.phrases.matching import Found, Trie, covered, find, match, trie
from jaxmlm.data.phrases.ngrams import count
from jaxmlm.data.phrases.ranking import choose, rank, read, tabulate
from jaxmlm.data.phrases.words import spell
from jaxmlm.data.word_boundaries import word_starts
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.logs import Log
from jaxmlm.masking.units import PHRASE, WORD
from jaxmlm.preemption import raise_if_stop_requested

pc: Any = pyarrow.compute  # its functions are made at run time, which type checkers cannot know
_SAMPLE, _SLICES = 1 << 22, 8  # tokens on which the size of a list is decided, and in how many pieces


def list_of(phrases: Phrases, lowercase: bool, store: Path) -> pa.Table | None:
    """The ready list that `phrases.file` names, None without one; refuses a cased list for a lower-cased store."""
    if phrases.file is None:
        return None
    path = expanded(phrases.file)
    table = read(path, phrases)
    if lowercase and (cased := _cased(table)):
        raise InputError(
            f"the phrase list {path} is cased ({len(cased)} of {len(table)} phrases, as {cased[0].as_py()!r}) and the "
            f"token store {store} is lower-cased: give a lower-cased list, or a store of --data.no-lowercase"
        )
    return table


def check_units(store: Store, phrases: Phrases) -> bool:
    """Whether the store has unit bits made with these settings; one with others is refused."""
    if "phrases" not in store.manifest:
        return False
    have = store.manifest["phrases"]["settings"]
    want = settings(phrases)
    if differing := [key for key in want if have.get(key) != want[key]]:
        key = differing[0]
        raise InputError(
            f"the token store {store.directory} was prepared with data.phrases.{key} {have.get(key)!r}, but this run "
            f"wants {want[key]!r}: name another --data.store"
        )
    return True


def settings(phrases: Phrases) -> dict[str, Any]:
    """What decides the unit bits of a store; a ready list by its SHA-256."""
    plain = asdict(phrases) | {"shares": list(phrases.shares)}
    return plain | {"file": phrases.file and sha256(expanded(phrases.file))}


def add_phrases(store: Store, phrases: Phrases, ready: pa.Table | None, stage: str = "prepare") -> None:
    """Make the phrase list of a store's train split (or take the ready one) and write the unit bits of all splits."""
    with Log(None, f"{stage}: phrases", phrases.longest + 2) as log:

        def progress(step: int) -> None:
            raise_if_stop_requested("counted phrases")
            log.show(step, {})

        def make(directory: Path) -> dict[str, Any]:
            table = ready
            short = {}
            scored = False
            fold = ready is None or not _cased(ready)
            if table is None:
                table = count_store(store, phrases, progress)
            if "score" not in table.column_names and "count" in table.column_names:
                ranked = rank(table, phrases)
                scored = True
                table, short = choose(ranked, phrases, _Sample(store, ranked, fold, phrases.overlap))
            lists = trie(table["phrase"])
            of_length = pc.value_counts(table["n"]).to_pylist()
            shares = {
                split: _write(store, split, lists, fold, phrases.overlap, directory) for split in ("train", "valid")
            }
            if shares["train"] == 0:
                raise InputError(
                    f"no phrase of {phrases.file or 'the list'} stands in the text of {store.directory}: "
                    "is it in the same language?"
                )
            parquet.write_table(table, directory / PHRASES_FILE)
            log.show(phrases.longest + 2, {})
            return {
                "settings": settings(phrases),
                "number": {str(row["values"]): row["counts"] for row in sorted(of_length, key=lambda r: r["values"])},
                "coverage": {split: round(share, 4) for split, share in shares.items()},
                "short": short,
                "scored": scored,
            }

        store.add_units(make)


def count_store(
    store: Store,
    phrases: Phrases,
    progress: Callable[[int], None] = lambda step: None,
) -> pa.Table:
    """The counts of the n-grams of a store's train split, as `tabulate` gives them; those of several stores add up."""
    texts = pa.array(store.tokenizer.piece_texts)
    numbers = []
    words = []
    for _, tokens in store.chunks("train"):
        number, word = spell(tokens, _first_tokens(store, tokens), texts)
        numbers.append(number)
        words.append(word)
    coded = pa.concat_arrays(words).dictionary_encode()
    of_chunk = np.split(coded.indices.to_numpy().astype(np.int32), np.cumsum([len(word) for word in words])[:-1])
    for i, mine in enumerate(of_chunk):
        numbers[i] = np.append(mine, np.int32(-1))[numbers[i]]
    progress(1)
    ngrams = count(numbers, phrases.longest, phrases.min_count, lambda n: progress(n + 1))
    return tabulate(ngrams, coded.dictionary)


def describe_phrases(entry: dict[str, Any]) -> str:
    """One line on the phrases of a store, from its manifest's entry."""
    lengths = ", ".join(f"{many:,} of {n} words" for n, many in entry["number"].items())
    line = f"phrases: {lengths}; they cover {entry['coverage']['train']:.1%} of the tokens"
    wanted = entry["settings"]["coverage"]
    sized = entry["settings"]["size"] is None and entry["scored"]
    if sized and entry["coverage"]["train"] < wanted - 0.01:  # the size is decided on a sample
        line += f" ({wanted:.1%} asked, the text gives no more)"
    if entry["short"]:
        line += "; quotas that ran short: " + ", ".join(f"{n} words by {by:,}" for n, by in entry["short"].items())
    return line


def matcher(store: Store) -> Callable[[np.ndarray], np.ndarray]:
    """A function that gives the unit bits [T] uint8 of any tokens [T] by the store's phrase list."""
    table = parquet.read_table(store.phrase_list())
    lists = trie(table["phrase"])
    fold = not _cased(table)
    overlap = store.manifest["phrases"]["settings"]["overlap"]

    def bits(tokens: np.ndarray) -> np.ndarray:
        _, first, words = _words(store, tokens, lists, fold)
        bits = np.zeros(len(tokens), np.uint8)
        bits[first] = WORD + PHRASE * match(find(lists, words), len(words), overlap).astype(np.uint8)
        return bits

    return bits


class _Sample:
    """The share of a sample of the train split that a part of a list covers."""

    def __init__(self, store: Store, ranked: pa.Table, fold: bool, overlap: str):
        lists = trie(ranked["phrase"])
        tokens = store.tokens("train")
        size = min(len(tokens), _SAMPLE)
        starts = np.linspace(0, len(tokens) - size // _SLICES, _SLICES).astype(int)
        places = np.concatenate([np.arange(start, start + size // _SLICES) for start in starts])
        self.tokens, self.first, self.words = _words(store, tokens[places], lists, fold)
        self.found, self.overlap = find(lists, self.words), overlap

    def __call__(self, taken: np.ndarray) -> float:
        kept = taken[self.found.row]
        found = Found(*(part[kept] for part in self.found))
        return _coverage(match(found, len(self.words), self.overlap), self.first, len(self.tokens)) / len(self.tokens)


def _first_tokens(store: Store, tokens: np.ndarray) -> np.ndarray:
    """The places of the first tokens of words."""
    return np.flatnonzero(word_starts(store.tokenizer.boundaries[tokens]))


def _words(store: Store, tokens: np.ndarray, lists: Trie, fold: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, where words start in them, and the words' ids in a trie."""
    first = _first_tokens(store, tokens)
    number, words = spell(tokens, first, pa.array(store.tokenizer.piece_texts), fold)
    ids = pc.fill_null(pc.index_in(words, lists.words), -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return tokens, first, np.append(ids, np.int32(-1))[number]


def _coverage(begins: np.ndarray, first: np.ndarray, tokens: int) -> int:
    """How many tokens are in phrases."""
    return int(np.diff(np.append(first, tokens))[covered(begins)].sum())


def _write(store: Store, split: str, lists: Trie, fold: bool, overlap: str, directory: Path) -> float:
    """Write the unit bits of a split; the share of its tokens that phrases cover."""
    inside = words_before = total = 0
    for name, _ in store.shards(split):
        (directory / units_of(name)).touch()
    for name, tokens in store.chunks(split):
        tokens, first, words = _words(store, tokens, lists, fold)
        begins = match(find(lists, words), len(words), overlap, words_before)
        bits = np.zeros(len(tokens), np.uint8)
        bits[first] = WORD + PHRASE * begins.astype(np.uint8)
        with open(directory / units_of(name), "ab") as f:
            f.write(bits.tobytes())
        inside = inside + _coverage(begins, first, len(tokens))
        total = total + len(tokens)
        words_before += len(words)
    return inside / max(total, 1)


def _cased(table: pa.Table) -> pa.ChunkedArray:
    """The phrases with a capital letter."""
    phrase = table["phrase"]
    return phrase.filter(pc.not_equal(phrase, pc.utf8_lower(phrase)))
