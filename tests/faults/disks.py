"""Full disks, and two equal commands at once."""

import os
import shutil
from pathlib import Path

from tests.faults.common import (
    FINETUNE,
    PREPARE,
    PRETRAIN,
    RUN_STUDY,
    Figure,
    command,
    contents,
    difference,
    limited,
    made,
    spread,
    start,
)

EXPORT = ("export", "run", "exported")
WRITERS = (
    (PREPARE, "store", ()),
    (PRETRAIN, "run", (PREPARE,)),
    (FINETUNE, "tuned", (PREPARE, PRETRAIN)),
    (EXPORT, "exported", (PREPARE, PRETRAIN)),
)
"""Commands that write, what they write, and what comes before."""
SIZES = (0, 500, 20_000)
"""Bytes that a file may have."""


def full(work: Path, short: bool) -> Figure:
    """Let a command meet a full disk, then let it run again on one with space."""
    figure = Figure("full disks: exit 2 in one line that names a path, and the same command then ends as ever")
    trials = []
    for words, result, before in WRITERS[1:2] if short else WRITERS:
        given = made(*before)
        wanted = contents(made(*before, words) / result)
        trials += [(words, result, given, wanted, size) for size in SIZES]

    def trial(number: int) -> str:
        words, result, given, wanted, size = trials[number]
        there = Path(shutil.copytree(given, work / f"full-{number}"))
        ended = command(there, words, limited(size))
        lines = [line for line in ended.err.splitlines() if line.startswith("jaxmlm: ")]
        why = ""
        if ended.code not in (0, 2) or "Traceback" in ended.err:
            why = f"exit {ended.code}: {ended.last}"
        elif ended.code == 2 and not (len(lines) == 1 and ("ulimit" in lines[0] or "large" in lines[0])):
            why = f"it says {ended.last}"
        again = command(there, words)
        if not why and again.code:
            why = f"then exit {again.code}: {again.last}"
        why = why or difference(wanted, contents(there / result))
        shutil.rmtree(there)
        return why and f"{words[0]}, {size} bytes: {why}"

    spread(figure, trial, len(trials), work)
    return figure


def pairs(work: Path, short: bool) -> Figure:
    """Start a command twice at once in one directory."""
    figure = Figure("pairs of equal commands at once: one is refused in a line, or finds what the other has made")
    kinds = [*WRITERS[:3], (RUN_STUDY, "study", (PREPARE,))]
    count = 1 if short else 5
    trials = [kind for kind in kinds[1:2] if short] or kinds * count
    wanted = {}
    for words, result, before in dict.fromkeys(trials):
        wanted[result] = contents(made(*before, words) / result)

    def trial(number: int) -> str:
        words, result, before = trials[number]
        there = Path(shutil.copytree(made(*before), work / f"pair-{number}"))
        ended = [one.wait() for one in [start(there, words), start(there, words)]]
        codes = sorted(one.code for one in ended)
        refused = [one for one in ended if one.code == 2]
        why = ""
        if codes not in ([0, 0], [0, 2]):
            why = f"exit {codes}: {ended[0].last} / {ended[1].last}"
        elif refused and not ("is in use: process" in refused[0].last and refused[0].err.count("jaxmlm: ") == 1):
            why = f"it says {refused[0].last}"
        why = why or difference(wanted[result], contents(there / result))
        shutil.rmtree(there)
        return why and f"{words[0]}: {why}"

    spread(figure, trial, len(trials), work)
    return figure


def small_disk(work: Path, short: bool) -> Figure:
    """Pre-train on a file system that has too little space; needs the right to mount one."""
    figure = Figure("a file system with 64 kB left: as a full disk, and the same command ends after it was made larger")
    there = work / "mounted"
    there.mkdir()
    if os.system(f"mount -t tmpfs -o size=100m tmpfs {there} 2>/dev/null"):
        figure.notes = "not run: no right to mount"
        return figure
    try:
        given = made(PREPARE)
        for name in ("run.py", "store"):
            source = given / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, there / name)
        used = shutil.disk_usage(there).used
        os.system(f"mount -o remount,size={used + 64 * 1024} {there}")
        ended = command(there, PRETRAIN)
        why = "" if ended.code == 2 and "free some space" in ended.last else f"exit {ended.code}: {ended.last}"
        os.system(f"mount -o remount,size=100m {there}")
        again = command(there, PRETRAIN, verified="run")
        why = why or (again.code and f"then exit {again.code}: {again.last}") or ""
        figure.add(why or difference(contents(made(PREPARE, PRETRAIN) / "run"), contents(there / "run")))
    finally:
        os.system(f"umount {there}")
    return figure


FIGURES = {"full-disks": full, "small-disk": small_disk, "pairs": pairs}
