"""Time and peak memory of making a phrase list: python benchmarks/phrases.py TEXT_OR_STORE [--keep DIRECTORY]

TEXT is a text file (plain, .gz, .xz, .zst), of which a token store is made first; STORE is the directory of one.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc

from jaxmlm.data import Data, Store
from jaxmlm.data.manifest import read_manifest, write_manifest
from jaxmlm.data.opening import open_store
from jaxmlm.data.phrases.counting import add_phrases, count_store, describe_phrases
from jaxmlm.data.phrases.ranking import Phrases


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--keep", type=Path, help="make the store here, and keep it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(asked.text, asked.keep or Path(temporary))


def measure(text: Path, workdir: Path) -> None:
    phrases, seconds, marked = Phrases(), {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal marked
        now = time.perf_counter()
        seconds[name], marked = round(now - marked, 1), now

    if text.is_dir():
        store = linked(text, workdir / "store")
    else:
        store = open_store(Data(text=str(text), store=str(workdir / "store")), workdir)
        lap("text to tokens")
    passes = iter(["tokens to words", *(f"pass {n}" for n in range(1, phrases.longest + 1))])
    counts = count_store(store, phrases, lambda step: lap(next(passes)))
    lap("text of the phrases")
    seconds["counting"] = round(sum(value for name, value in seconds.items() if name != "text to tokens"), 1)
    counting_gib = peak()
    words = counts.filter((pc.field("n") == 1) & (pc.field("phrase") == ""))["count"][0].as_py()
    of_length = {n: counts.filter((pc.field("n") == n) & (pc.field("phrase") != "")).num_rows for n in range(1, 6)}
    marked = time.perf_counter()
    if "phrases" not in store.manifest:
        add_phrases(store, phrases, None)
        lap("whole phrase pass (counting again, score, choose, match, write)")
        print(describe_phrases(store.manifest["phrases"]), file=sys.stderr)
    result = {
        "tokens": store.manifest["train"]["tokens"],
        "words": words,
        "ngrams kept": of_length,
        "seconds": seconds,
        "peak_gib": {"counting": counting_gib, "all": peak()},
        "cores": os.cpu_count(),
    }
    print(json.dumps(result, indent=1))


def linked(store: Path, directory: Path) -> Store:
    """A store of hard links to the files of this one, so that nothing is written into it."""
    directory.mkdir(parents=True)
    for path in store.iterdir():
        if path.suffix in (".bin", ".model"):
            (directory / path.name).hardlink_to(path.resolve())
    manifest = read_manifest(store)
    write_manifest(directory, {key: value for key, value in manifest.items() if key != "phrases"})
    return Store(directory)


def peak() -> float:
    """The most memory that this process has had, in GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


if __name__ == "__main__":
    main()
