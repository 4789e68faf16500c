"""SIGKILL at announced phases: the same command again must end as if nothing had happened."""

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import partial
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
    made,
    spread,
)
from tests.faults.phases import install


def kills(work: Path, words: Sequence[str], first: Sequence[tuple[str, ...]], result: str, count: int) -> Figure:
    """Kill a command at `count` places that are spread over all phases that it announces.

    Args:
        work: an empty directory.
        words: the command.
        first: commands that come before it, and are not killed.
        result: the directory that it writes.
        count: number of kills.

    """
    figure = Figure(f"SIGKILL of `{words[0]}`: the same command again ends with the same bits")
    given = made(*first)
    straight = Path(shutil.copytree(given, work / "straight"))
    told = work / "announcements"
    unbroken = command(straight, words, partial(install, None, told))
    if unbroken.code:
        raise SystemExit(unbroken.err)
    wanted = contents(straight / result)
    chosen = places(told.read_text().splitlines(), count)

    def trial(number: int) -> str:
        at = chosen[number]
        there = Path(shutil.copytree(given, work / f"killed-{number}"))
        ended = command(there, words, partial(install, at))
        again = command(there, words, verified=result)
        why = ""
        if ended.code not in (0, -9):
            why = f"exit {ended.code}: {ended.last}"
        elif again.code:
            why = f"then exit {again.code}: {again.last}"
        why = why or difference(wanted, contents(there / result))
        shutil.rmtree(there)
        return why and f"at {at[0]} ({at[1]}): {why}"

    spread(figure, trial, len(chosen), work)
    phases = Counter(phase.partition(":")[0] for phase, _ in chosen)
    figure.notes = ", ".join(f"{phase} {number}" for phase, number in phases.items())
    return figure


def places(announced: Sequence[str], count: int) -> list[tuple[str, int]]:
    """Announcements to be killed at: of each phase in turn one that was not taken.

    >>> places(["a: begins", "a: ends", "b: begins", "b: ends"], 3)
    [('a: begins', 0), ('b: begins', 0), ('a: ends', 0)]
    """
    rng = random.Random(0)
    left: dict[str, list[tuple[str, int]]] = {}
    for phase, seen in Counter(announced).items():
        left.setdefault(phase.partition(":")[0], []).extend((phase, number) for number in range(seen))
    for some in left.values():
        first = [one for one in some if one[1] == 0]
        later = [one for one in some if one[1]]
        rng.shuffle(later)
        some[:] = [*first, *later]
    chosen: list[tuple[str, int]] = []
    while len(chosen) < count and any(left.values()):
        chosen += [some.pop(0) for some in left.values() if some]
    return chosen[:count]


def of_pretrain(work: Path, short: bool) -> Figure:
    """Kills of a pre-training."""
    return kills(work, PRETRAIN, [PREPARE], "run", 5 if short else 60)


def of_prepare(work: Path, short: bool) -> Figure:
    """Kills while a token store is made."""
    return kills(work, PREPARE, [], "store", 3 if short else 20)


def of_finetune(work: Path, short: bool) -> Figure:
    """Kills of a fine-tuning of two seeds."""
    return kills(work, FINETUNE, [PREPARE, PRETRAIN], "tuned", 2 if short else 10)


def of_study(work: Path, short: bool) -> Figure:
    """Kills of a study of two cells."""
    return kills(work, RUN_STUDY, [PREPARE], "study", 2 if short else 20)


FIGURES = {
    "kill-pretrain": of_pretrain,
    "kill-prepare": of_prepare,
    "kill-finetune": of_finetune,
    "kill-study": of_study,
}
