"""Which token store a configuration wants: the one that is there, or a new one of its texts."""

import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxmlm.data import Data, Store, build, merge
from jaxmlm.data import remote as cloud
from jaxmlm.data.building import Progress
from jaxmlm.data.files import File, files, sha256
from jaxmlm.data.from_python import given
from jaxmlm.data.hf_tokenizer import open_tokenizer
from jaxmlm.data.manifest import MANIFEST, tokenizer_files
from jaxmlm.data.merging import PLAN, shard_name, unfinished
from jaxmlm.data.phrases.counting import add_phrases, check_units, list_of
from jaxmlm.data.registry import is_files, open_source
from jaxmlm.data.sources import TextSource
from jaxmlm.data.tokenizer import is_uncased
from jaxmlm.data.verification import RECORD
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.logs import Log
from jaxmlm.parallel import hosts
from jaxmlm.preemption import raise_if_stop_requested
from jaxmlm.wording import counted

LEAST_DOCUMENTS = 20
LEAST_TOKENS = 5_000
"""With fewer of either, the loss on what is held out says little about other texts."""
SHOWN = 8  # new words that are named


def store_directory(data: Data, workdir: Path) -> Path:
    """Return the directory of the token store of a configuration; of one in a bucket, that of its copy."""
    if cloud.remote(data.store):
        return cloud.copy_of(str(data.store))
    return expanded(data.store) if data.store else workdir / "store"


def open_store(
    data: Data,
    workdir: str | Path,
    stage: str = "prepare",
    phrases: bool = False,
    workers: int | None = None,
    notes: bool = True,
) -> Store:
    """Open the token store of a configuration; make it where there is none.

    Of several hosts the primary one comes first: the others wait, and then find what it has made, or make the same
    where they do not share its disk. A store in a bucket is copied from there; one that is made here is copied to it.

    Args:
        data: the configuration.
        workdir: directory of the run, where the store is unless `data.store` names one.
        stage: name of this work in the progress display.
        phrases: also find the phrases of `data.phrases` in the text.
        workers: threads that tokenize; None: one for each core.
        notes: say on stderr what to know of the held-out part of a new store.

    Raises:
        InputError: the store there is damaged, or was made from another text or with other settings; there is no such
            text, tokenizer or phrase list; another process is making the store.

    """
    with hosts.primary_first():
        return _open_store(data, store_directory(data, Path(workdir)), stage, phrases, workers, notes)


def prepare(documents: Iterable[Any], data: Data, workers: int | None = None) -> Store:
    """Make the token store of documents that a program gives, or open the one that is there.

    It is killed and called again as `jaxmlm prepare` is: with the same documents in the same order the parts that were
    complete are kept.

    Args:
        documents: strings, or mappings with the text in `data.field`; read once, in constant memory.
        data: the configuration. Its `text` is documents:NAME, with another NAME for other documents; `store` names the
            directory, with which `pretrain` and the command line find it.
        workers: threads that encode; None: one for each core.

    Raises:
        InputError: `data` names no store or no documents, a document is not text, or a store of another configuration
            is there.

    Examples:
        data = Data(text="documents:tickets-2026", store="stores/tickets", vocab=8000)
        prepare((row["body"] for row in database), data)
        pretrain(Run("runs/tickets", data=data))

    """
    if not data.store:
        raise InputError("data.store is not given: name the directory of the token store, as Data(store='stores/mine')")
    source = given(documents, data)
    with hosts.primary_first():
        return _open_store(data, store_directory(data, Path()), "prepare", False, workers, True, [source])


def _open_store(
    data: Data,
    directory: Path,
    stage: str,
    phrases: bool,
    workers: int | None,
    notes: bool,
    sources: list[TextSource] | None = None,
) -> Store:
    phrase_list = list_of(data.phrases, _is_lowercase(data), directory) if phrases else None  # refused before the work
    bucket = _bucket(data)
    to_send = bucket is not None and not _copy_from_bucket(bucket, directory)
    if (directory / MANIFEST).is_file():
        store = Store(directory)
        store.check(data)
        _check_source(store, data)
    else:
        store = _build_store(data, directory, stage, workers, sources=sources) or Store(directory)
        for note in notes_of(store) if notes else ():
            print(note, file=sys.stderr)
    if phrases and not check_units(store, data.phrases):
        add_phrases(store, data.phrases, phrase_list, stage)
        to_send = bucket is not None
    if bucket and to_send:
        _send(directory, bucket)
    return store


def _is_lowercase(data: Data) -> bool:
    return is_uncased(open_tokenizer(data.tokenizer)) if data.tokenizer else data.lowercase


def _copy_from_bucket(bucket: str, directory: Path) -> bool:
    """Make a directory the copy of a store in a bucket; whether the bucket has it.

    If it has not, then a store that was made here, and that a kill kept from the bucket, stays: it is sent later. Any
    other copy is of a store that was deleted in the bucket, and is deleted too.
    """
    if cloud.pull(bucket, directory, MANIFEST):
        _unsent(directory).unlink(missing_ok=True)
        return True
    if not _unsent(directory).is_file():
        _begin_copy(directory)
    return False


def notes_of(store: Store) -> list[str]:
    """Return what is to be known of a new store: its new words, and of its held-out part whether it is cut or small."""
    documents = store.manifest["valid"]["documents"]
    tokens = store.manifest["valid"]["tokens"]
    notes = []
    if added := store.manifest["data"].get("new_words", 0):
        size = store.tokenizer.size
        first = [store.tokenizer.piece_texts[i] for i in range(size - added, size)][:SHOWN]
        notes.append(f"{added:,} new words: {', '.join(first)}{', ...' if added > SHOWN else ''}")
    if store.cut:
        notes.append(
            "too few documents to hold out whole ones only: one is cut, its beginning is trained on and its end is "
            "held out, and it counts in both parts"
        )
    if documents < LEAST_DOCUMENTS or tokens < LEAST_TOKENS:
        have = f"{counted(documents, 'document')}, {counted(tokens, 'token')}"
        notes.append(
            f"warning: the held-out part is small ({have}), so its loss says little about other texts: give more "
            "documents (--data.layout says what ends one), or set data.valid higher"
        )
    return notes


def prepare_shard(data: Data, workdir: Path, shard: tuple[int, int], workers: int | None = None) -> None:
    """Do one machine's share of a token store; `merge_shards` makes the store when all are done.

    Args:
        data: the configuration.
        workdir: directory of the run, where the store is unless `data.store` names one.
        shard: number of this machine, from 0, and how many there are.
        workers: threads that tokenize; None: one for each core.

    Raises:
        InputError: the store is there already, or the other machines have other settings.

    """
    directory = store_directory(data, workdir)
    bucket = _bucket(data)
    if cloud.holds(bucket, MANIFEST) if bucket else (directory / MANIFEST).is_file():
        raise InputError(f"the token store {bucket or directory} is there already: delete it to make it again")
    if bucket:  # so that another plan than that of the other machines is refused before the work
        shutil.rmtree(directory, ignore_errors=True)  # the copy of a store that the bucket has no more
        cloud.pull(f"{bucket}.part", unfinished(directory), PLAN, only=(PLAN,))
    _build_store(data, directory, f"prepare {shard[0]}/{shard[1]}", workers, shard)
    if bucket:
        cloud.push(unfinished(directory), f"{bucket}.part", shard_name(*shard))


def merge_shards(data: Data, workdir: Path) -> None:
    """Make the token store of the shares that all machines have done, if it is not there.

    Args:
        data: the configuration.
        workdir: directory of the run, where the store is unless `data.store` names one.

    Raises:
        InputError: a machine has not finished, or had other settings.

    """
    directory = store_directory(data, workdir)
    bucket = _bucket(data)
    if cloud.pull(bucket, directory, MANIFEST) if bucket else (directory / MANIFEST).is_file():
        return
    if bucket:
        _begin_copy(directory)  # also after an earlier merge that did not reach the bucket
        cloud.pull(f"{bucket}.part", unfinished(directory), PLAN)
    merge(directory, data)
    if bucket:
        _send(directory, bucket)
        cloud.remove(f"{bucket}.part")


def _bucket(data: Data) -> str | None:
    return data.store.rstrip("/") if data.store and cloud.remote(data.store) else None


def _unsent(directory: Path) -> Path:
    """The mark of a copy that is made here and has not reached its bucket: one without it was deleted there."""
    return directory.with_name(directory.name + ".unsent")


def _begin_copy(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _unsent(directory).touch()


def _send(directory: Path, bucket: str) -> None:
    cloud.push(directory, bucket, MANIFEST, aside=(RECORD,))
    _unsent(directory).unlink(missing_ok=True)


def _build_store(
    data: Data,
    directory: Path,
    stage: str,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
    sources: list[TextSource] | None = None,
) -> Store | None:
    sources = sources or [open_source(text, data) for text in data.texts]
    size = sum(group.size for source in sources for group in source.groups)
    with Log(None, stage, size) as log:
        began, read_then = 0.0, 0  # when the first was read: the tokenizer is trained before

        def show(at: Progress) -> None:
            nonlocal began, read_then
            raise_if_stop_requested("prepared the text")
            values: dict[str, float] = {}
            if at.read:
                began, read_then = (began, read_then) if began else (time.monotonic(), at.read)
                left = (time.monotonic() - began) * (at.size - at.read) / max(at.read - read_then, 1)
                values = {"documents": at.documents, "tokens_done": at.tokens, "seconds_left": max(left, 0.0)}
            log.show(min(at.read, at.size), values)

        return build(directory, data, sources, show, workers, shard)


def _check_source(store: Store, data: Data) -> None:
    """Refuse a store whose texts have changed since; files that are gone have not (a store travels alone)."""
    written = {about["file"]: about["source"] for about in store.manifest["source"] if "source" in about}
    for text in data.texts:
        if text in written and open_source(text, data).about[0].get("source") != written[text]:
            raise InputError(
                f"the token store {store.directory} was made of {text} by another function (its file has changed "
                "since): delete the store to make it again, or name another --data.store; runs that were trained on "
                "it need another --workdir then"
            )
    on_disk = [text for text in data.texts if is_files(text) and not cloud.remote(text)]
    try:
        paths = [path for text in on_disk for path in files(text)]
    except InputError:
        return
    now = [(path.name, path.stat().st_size) for path in paths]
    source = [about for about in store.manifest["source"] if "sha256" in about]
    then = [(about["file"], about.get("bytes")) for about in source]
    if now != then:
        name, size = next(((n, s) for n, s in now if (n, s) not in then), now[0] if now else ("none", 0))
        why = f"{name} of {size:,} bytes was not in it"
    elif changed := _changed(paths, source, store):
        why = f"{changed} has changed since"
    else:
        return
    raise InputError(
        f"the token store {store.directory} was made of another text than {data.text!r} is now ({why}): delete the "
        "store to make it again, or name another --data.store; runs that were trained on it need another --workdir then"
    )


def _changed(paths: list[File], source: list[dict[str, Any]], store: Store) -> str | None:
    """The name of the first file whose bytes are not those that the manifest tells; None if there is none.

    Only files that were written after the tokenizer, the first file of a store, are read for it.
    """
    made = (store.directory / tokenizer_files(store.manifest)[0].name).stat().st_mtime_ns
    for path, about in zip(paths, source, strict=True):
        if isinstance(path, Path) and path.stat().st_mtime_ns >= made and about["sha256"] != sha256(path):
            return path.name
    return None
