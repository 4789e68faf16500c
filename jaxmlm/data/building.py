"""From sources to a token store, in parts: killed at any moment, prepared by any number of threads or machines, the
bytes are the same.

While a store is being made, its directory is called DIR.part and holds

    plan.json          which text and which settings: another plan begins anew
    tokenizer.model    of the first words of the text, or the ready one
    GGGGG-PPPPP.json   a part that is done: part P of group G of the sources, beside its train and valid files (.bin,
                       .docs, and .marks and .found where the text is cleaned)
    shard-I-of-N.json  with --shard: machine I has done all of its parts

A part is cut by its text alone, so it is the same whoever makes it. `finish` drops duplicates over all parts, numbers
the files and writes the manifest.
"""

import hashlib
import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.data.cleaning.marking import Marker
from jaxmlm.data.config import Data
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.manifest import DOCUMENT, FORMAT, SPLITS, token_dtype
from jaxmlm.data.merging import PLAN, check_place, finish, part_name, read_part, shard_name, unfinished
from jaxmlm.data.new_words import with_new_words
from jaxmlm.data.part_files import SplitFiles, read_found, read_marks, write_found
from jaxmlm.data.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxmlm.data.sources import Document, TextSource, mixed
from jaxmlm.data.store import Store, read_document_list
from jaxmlm.data.tokenizer import Tokenizer, pieces_of
from jaxmlm.errors import InputError
from jaxmlm.json_files import read_json, write_json
from jaxmlm.locks import claim

PART = 1 << 28  # characters of text
CHUNK = 1 << 19  # characters that a thread encodes at once
PIECE = 1 << 17  # characters of a document that the tokenizer gets at once: it needs 100 bytes for each
BATCH = 64  # such pieces, or whole documents, in a call of the tokenizer


class Progress(NamedTuple):
    """How far a build is: read of size (bytes of files, or documents; 0: nobody knows), and what that gave."""

    stage: str
    read: int = 0
    size: int = 0
    documents: int = 0
    tokens: int = 0


class _Encoded(NamedTuple):
    of: int  # source
    document: Document
    hash: int
    ids: np.ndarray
    mark: np.ndarray | None = None  # [1]
    found: np.ndarray | None = None  # numbers of the runs of evaluation sets that it holds


def build(
    directory: Path,
    data: Data,
    sources: list[TextSource],
    progress: Callable[[Progress], None] = lambda progress: None,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Store | None:
    """Train the tokenizer, or take the ready one, and write the store; it appears whole under its name, or not at all.

    The sources are read one after the other, or mixed by `data.weights`, once or twice; the manifest tells what they
    are and, of a mix, the tokens taken from each. What an earlier call had done when it was killed is kept. With
    `shard` = (i, n) only the i-th of n shares of the work is done, and None is returned: `merge` makes the store.
    `workers` threads encode (one for each core if not given).
    """
    check_place(directory)
    data.check_new_words()
    if shard and data.weights:
        raise InputError(
            "data.weights do not go with --shard: which documents a mix takes depends on all before them. Prepare the "
            "mix on one machine"
        )
    plan = {"format": FORMAT, "data": data.content(), "source": [about for source in sources for about in source.about]}
    # Machines that share the work write different parts, or the same bytes.
    claimed = nullcontext() if shard else claim(directory, "token store", beside=True)
    with claimed, _unfinished(directory, plan, shard is not None) as part:
        progress(Progress("tokenizer"))
        tokenizer = _tokenizer(part, data, sources)
        threads = workers or os.cpu_count() or 1
        with ThreadPoolExecutor(threads) as pool:
            writer = _Writer(
                part, data, tokenizer, pool, threads, progress, sum(g.size for s in sources for g in s.groups)
            )
            if data.weights:
                writer.mix(sources)
            else:
                writer.read(sources, shard)
        if shard:
            write_json(part / shard_name(*shard), {"tokenizer": _sha(tokenizer), "groups": writer.parts})
            return None
        finish(part, directory, plan, data, tokenizer, writer.marker)
    return Store(directory)


def _tokenizer(part: Path, data: Data, sources: list[TextSource]) -> Tokenizer:
    if data.tokenizer is not None:
        tokenizer = open_tokenizer(data.tokenizer)
        if data.new_words:
            tokenizer = with_new_words(tokenizer, _sample(data, sources), data.new_words)
    elif (part / "tokenizer.model").is_file():
        return SentencePieceTokenizer.load(part / "tokenizer.model")
    else:
        tokenizer = SentencePieceTokenizer.train(
            _sample(data, sources), data.vocab, data.lowercase, data.model_type, data.byte_fallback
        )
    with TemporaryDirectory(prefix="tokenizer.", dir=part) as own:  # another machine may be writing the same file
        tokenizer.save(Path(own))
        for file in Path(own).iterdir():
            os.replace(file, part / file.name)
    return tokenizer


def _sample(data: Data, sources: list[TextSource]) -> Iterator[str]:
    """What of the text the tokenizer is made of."""
    texts = [(document.text for document in source.documents()) for source in sources]
    joined = mixed(texts, data.weights, words_in) if data.weights else itertools.chain(*texts)
    return first_words(joined, data.tokenizer_words)


class _Writer:
    """Writes the parts that are not there yet; `parts` are how many each group has that was read to its end."""

    def __init__(
        self,
        directory: Path,
        data: Data,
        tokenizer: Tokenizer,
        pool: ThreadPoolExecutor,
        threads: int,
        progress: Callable[[Progress], None],
        size: int,
    ):
        self.directory, self.data, self.tokenizer, self.pool, self.ahead = directory, data, tokenizer, pool, 2 * threads
        self.dtype = token_dtype(tokenizer.size)
        self.progress, self.size = progress, size
        self.marker = Marker(data.clean) if data.clean.asked else None
        self.parts: dict[str, int] = {}
        self.read_before = self.documents = self.tokens = 0

    def read(self, sources: list[TextSource], shard: tuple[int, int] | None) -> None:
        """The groups one after the other; of them what is this machine's share."""
        share, shares = shard or (0, 1)
        groups = [(of, group) for of, source in enumerate(sources) for group in source.groups]
        whole = len(groups) >= shares  # else every machine reads all the text, and encodes its share of the parts
        files = np.cumsum([0, *(len(source.about) for source in sources)]).tolist()
        for g, (of, group) in enumerate(groups):
            if not whole or g % shares == share:
                numbered = _numbered(group.documents())
                p = -1
                for p, documents in itertools.groupby(numbered, lambda pair: pair[0]):
                    if said := self._done(g, p):
                        self._check_same(said, (document for _, document in documents))
                        continue
                    if not whole and (g + p) % shares != share:
                        deque(documents, 0)
                        continue
                    encoded = self._encoded(of, (document for _, document in documents))
                    self._write(g, p, encoded, files, {})
                self.parts[str(g)] = p + 1
            self.read_before += group.size

    def mix(self, sources: list[TextSource]) -> None:
        """The sources mixed by weight, as one group. Resumes after the last part that is there."""
        files = np.cumsum([0, *(len(source.about) for source in sources)]).tolist()
        taken = [0] * len(sources)
        passed = [0] * len(sources)
        first = 0
        while state := self._done(0, first):
            taken = state["taken"]
            passed = state["passed"]
            first = first + 1
        streams = [
            self._encoded(of, itertools.islice(source.documents(), passed[of], None))
            for of, source in enumerate(sources)
        ]
        items = mixed(streams, self.data.weights, lambda item: len(item.ids), taken)
        for p, part in itertools.groupby(_numbered(items, first), lambda pair: pair[0]):
            state = {"taken": taken, "passed": passed}
            self._write(0, p, _counted(part, taken, passed), files, state)

    def _done(self, g: int, p: int) -> dict[str, Any] | None:
        """What a part's file says of it, if the part is there and complete."""
        file = self.directory / part_name(g, p)
        if not file.is_file():
            return None
        try:
            said = read_part(file)
        except InputError:  # damaged: the part is done again
            return None
        for split in SPLITS:
            path = self.directory / said[split]["file"]
            tokens = said[split]["tokens"]
            if not path.is_file() or path.stat().st_size != tokens * self.dtype.itemsize:
                return None  # killed while the parts became a store
            if read_document_list(path.with_suffix(".docs"), said[split]) is None:
                return None
            if self.marker and read_marks(path, said[split]) is None:
                return None
        runs = self.marker.runs if self.marker else 0
        if self.marker and read_found(file.with_suffix(".found"), said.get("found_sha256"), runs) is None:
            return None
        return said

    def _check_same(self, said: dict[str, Any], documents: Iterator[Document]) -> None:
        """Refuse documents that are not those of a part that is done; of a program's nothing else tells it."""
        paths = [(self.directory / said[split]["file"]).with_suffix(".docs") for split in SPLITS]
        entries = np.concatenate([np.fromfile(path, DOCUMENT) for path in paths])
        then = entries["hash"][np.lexsort((entries["number"], entries["file"]))]
        now = np.fromiter((_hash(document.text) for document in documents), np.uint64)
        if not np.array_equal(then, now):
            raise InputError(
                f"{self.directory} was made from different documents than there are now: delete it to start over, "
                "or give the same documents in the same order"
            )

    def _encoded(self, of: int, documents: Iterator[Document]) -> Iterator[_Encoded]:
        """The documents with their tokens, in order; the next chunks are being encoded meanwhile."""
        coming: deque[Future[list[_Encoded]]] = deque()
        for chunk in _chunks(documents):
            coming.append(self.pool.submit(_encode, of, chunk, self.tokenizer, self.dtype, self.marker))
            if len(coming) > self.ahead:
                yield from coming.popleft().result()
        while coming:
            yield from coming.popleft().result()

    def _write(self, g: int, p: int, encoded: Iterable[_Encoded], files: list[int], state: dict[str, Any]) -> None:
        marker = self.marker
        splits = {
            name: SplitFiles(self.directory, f"{name}-{g:05d}-{p:05d}", self.dtype, bool(marker)) for name in SPLITS
        }
        found = np.zeros(marker.runs if marker else 0, bool)
        held_out = self.data.valid * 2**64
        read = 0
        try:
            for number, item in enumerate(encoded, 1):
                document = item.document
                ids = item.ids
                entry = (item.hash, document.number, files[item.of] + document.file, len(ids))
                splits["valid" if item.hash < held_out else "train"].add(ids, entry, item.mark)
                found[item.found if item.found is not None else []] = True
                self.documents, self.tokens, read = self.documents + 1, self.tokens + len(ids), document.read
                if number % 256 == 0:
                    self._say(read)
            said = {name: split.close() for name, split in splits.items()} | state
            if marker:
                said["found_sha256"] = write_found((self.directory / part_name(g, p)).with_suffix(".found"), found)
            write_json(self.directory / part_name(g, p), said)
            self._say(read)
        finally:
            for split in splits.values():
                split.file.close()

    def _say(self, read: int) -> None:
        self.progress(Progress("tokens", self.read_before + read, self.size, self.documents, self.tokens))


def _numbered(items: Iterable[Any], part: int = 0) -> Iterator[tuple[int, Any]]:
    """Each document with the number of its part, which is full when it has PART characters."""
    size = 0
    for item in items:
        yield part, item
        size += len(item.text if isinstance(item, Document) else item.document.text)
        if size >= PART:
            part = part + 1
            size = 0


def _counted(part: Iterable[tuple[int, _Encoded]], taken: list[int], passed: list[int]) -> Iterator[_Encoded]:
    for _, item in part:
        taken[item.of] += len(item.ids)
        passed[item.of] += 1
        yield item


def _chunks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    chunk = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document.text)
        if size >= CHUNK or len(chunk) == 1000:
            yield chunk
            chunk = []
            size = 0
    if chunk:
        yield chunk


def _encode(
    of: int, documents: list[Document], tokenizer: Tokenizer, dtype: np.dtype, marker: Marker | None
) -> list[_Encoded]:
    pieces = [pieces_of(document.text, PIECE) for document in documents]
    flat = list(itertools.chain(*pieces))
    # Some at a time: a list of ids takes twenty times the memory of an array.
    batches = (tokenizer.encode_batch(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH))
    found = (np.array(ids, dtype) for ids in itertools.chain.from_iterable(batches))
    marks = marker([document.text for document in documents]) if marker else None
    encoded = []
    for i, (document, parts) in enumerate(zip(documents, pieces, strict=True)):
        ids = [*itertools.islice(found, len(parts)), np.array([tokenizer.sep_id], dtype)]
        marked = (marks.documents[i : i + 1], marks.found[i]) if marks else ()
        encoded.append(_Encoded(of, document, _hash(document.text), np.concatenate(ids), *marked))
    return encoded


def words_in(text: str) -> int:
    """About the number of words of a text.

    >>> words_in("two words")
    2
    """
    return max(text.count(" ") + 1, len(text) // 16)  # some writing has no spaces


def _hash(text: str) -> int:
    """64 bits of the text, the same for ever."""
    return int.from_bytes(hashlib.sha1(text.encode("utf-8", "replace")).digest()[:8])


def _sha(tokenizer: Tokenizer) -> str:
    return hashlib.sha256(tokenizer.model).hexdigest()


def first_words(texts: Iterator[str], words: int) -> Iterator[str]:
    """The first texts, which together have about so many words; the last one is cut."""
    for text in texts:
        if (size := words_in(text)) > words:  # a document may be a whole library
            text = text[: -(-len(text) * words // size)]
        yield text
        words -= size
        if words <= 0:
            return


@contextmanager
def _unfinished(directory: Path, plan: dict[str, Any], shared: bool) -> Iterator[Path]:
    """The directory of what is not finished.

    Whatever ends the work, a signal, a full disk or a bad file, the parts that are done stay for the next call; without
    one nothing is left, but what other machines have there.
    """
    part = unfinished(directory)
    fresh = [parent for parent in part.parents if not parent.exists()]
    file = part / PLAN
    if file.is_file() and not _is_plan(file, plan):
        if shared:
            raise InputError(
                f"{part} holds the parts of a different text or of different settings: to start over delete it; if the "
                f"store is in a bucket, delete {part.name} there too"
            )
        shutil.rmtree(part)
    if part.exists() and not file.is_file() and not shared:
        shutil.rmtree(part)
    part.mkdir(parents=True, exist_ok=True)
    write_json(file, plan)
    try:
        yield part
    except BaseException:
        if not shared and not list(part.glob("*-*.json")):
            shutil.rmtree(part, ignore_errors=True)
            with suppress(OSError):  # somebody else wrote there meanwhile
                for parent in fresh:
                    parent.rmdir()
        raise


def _is_plan(file: Path, plan: dict[str, Any]) -> bool:
    try:
        return read_json(file, "the plan of a token store") == plan
    except InputError:  # damaged: what is there cannot be trusted
        return False
