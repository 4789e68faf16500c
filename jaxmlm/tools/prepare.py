"""`jaxmlm prepare`: text to tokenizer to token shards, and to phrases when the masking wants them."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxmlm.checks import COUNT, check_numbers
from jaxmlm.data import Batches, open_rows
from jaxmlm.data.manifest import SETS
from jaxmlm.data.opening import merge_shards, notes_of, open_store, prepare_shard, store_directory
from jaxmlm.data.phrases.counting import describe_phrases
from jaxmlm.errors import InputError
from jaxmlm.fields import describe
from jaxmlm.parallel import hosts
from jaxmlm.preemption import stoppable
from jaxmlm.runs.run import Run
from jaxmlm.wording import counted


@dataclass(frozen=True)
class Prepare:
    """What `jaxmlm prepare` takes beside the options of the configuration."""

    shard: str | None = None
    """Share of the work, I/N: the I-th (from 0) of N, on a machine that sees the same directory as the others."""
    merge: bool = False
    """Whether to make the store of the shares; when all of them are done."""
    workers: int | None = None
    """Number of threads that encode; None: one for each core. The bytes are the same for any number."""

    def __post_init__(self) -> None:
        check_numbers(self, "--", workers=COUNT)


@stoppable()
def prepare(run: Run, options: Prepare | None = None) -> dict[str, Any]:
    """Make the token store of a run's configuration, or check the one that is there; says what is in it.

    A masking of phrases also gets its phrase list and unit bits.
    """
    options = options or Prepare()
    workdir = Path(run.workdir)
    if options.shard is None:
        hosts.assert_same("configurations", describe(replace(run, data=replace(run.data, store=None))))
    if options.shard is not None:
        at = re.fullmatch(r"(\d+)/(\d+)", options.shard)
        if options.merge or not at or int(at[1]) >= int(at[2]):
            raise InputError(f"shard is {options.shard!r}: write I/N, from 0/N to N-1/N, and then --merge alone")
        prepare_shard(run.text, workdir, (int(at[1]), int(at[2])), options.workers)
        print(f"share {options.shard} is done; when all are: jaxmlm prepare CONFIG --merge", file=sys.stderr)
        return {"store": run.data.store or str(store_directory(run.data, workdir)), "shard": options.shard}
    if options.merge:
        with hosts.primary_first():
            if hosts.is_primary():
                merge_shards(run.text, workdir)
    store = open_store(run.text, workdir, phrases=run.needs_phrases, workers=options.workers, notes=False)
    splits = {name: {key: store.manifest[name][key] for key in ("documents", "tokens")} for name in ("train", "valid")}
    for name, split in splits.items():
        batches = Batches(open_rows(store, name, run.data.length, run.data.format), 1)
        split["rows"] = batches.rows
    left_out = splits["train"]["rows"] % run.loop.batch
    share = splits["valid"]["tokens"] / sum(split["tokens"] for split in splits.values())
    for name, split in splits.items():
        said = ", ".join(counted(value, what.removesuffix("s")) for what, value in split.items())
        held = f": held out, {share:.2%} of the tokens" if name == "valid" else ""
        print(f"{name}: {said}{held}", file=sys.stderr)
    for note in notes_of(store):
        print(note, file=sys.stderr)
    whole = f"{splits['train']['rows'] // run.loop.batch:,} batches of {run.loop.batch} rows"
    print(f"an epoch: {whole}; {left_out:,} rows are left out, others each time", file=sys.stderr)
    for text, tokens in store.manifest.get("mix", {}).items():
        print(f"mixed in: {tokens:,} tokens of {text}", file=sys.stderr)
    shown = {"store": str(store.directory), "vocab": store.tokenizer.size, **splits, "left_out": left_out}
    shown["documents"] = sum(split["documents"] for split in splits.values()) - store.cut
    shown |= {key: store.manifest[key] for key in ("mix", "duplicates", "cleaning") if key in store.manifest}
    if "duplicates" in shown:
        print(f"duplicates: {shown['duplicates']:,} documents dropped", file=sys.stderr)
    for line in _about_cleaning(store.manifest.get("cleaning", {})):
        print(line, file=sys.stderr)
    if run.needs_phrases:
        entry = store.manifest["phrases"]
        print(describe_phrases(entry), file=sys.stderr)
        shown["phrases"] = {key: entry[key] for key in ("number", "coverage", "short")}
    return shown


def _about_cleaning(cleaning: dict[str, Any]) -> Iterator[str]:
    """The lines that say what was cleaned: a table of the evaluation sets, then what was dropped."""
    rows = cleaning.get(SETS, [])
    if rows:
        yield f"{'evaluation set':<20}{'words':>6}{'passages':>10}{'touched':>9}{'found':>8}{'in documents':>14}"
    for row in rows:
        counts = f"{row['passages']:>10,}{row['touched']:>9,}{row['found']:>8,}{row['documents']:>14,}"
        yield f"{row['set'][:19]:<20}{row['words']:>6}{counts}"
    if rows and "contaminated" not in cleaning:
        yield "documents with words of evaluation sets: counted, none dropped"
    elif rows:
        yield f"documents with words of evaluation sets: {cleaning['contaminated']:,} dropped"
    if "near_duplicates" in cleaning:
        groups = counted(cleaning.get("near_duplicate_groups", 0), "group")
        yield f"near duplicates: {cleaning['near_duplicates']:,} documents of {groups} dropped, the first of each stays"
