"""BabyLM's evaluation without training: its directory as it comes, its rules of scoring, its prediction files.

As evaluation-pipeline-2025 does it (github.com/babylm, sentence_zero_shot), which the strict tracks of 2026 run
unchanged: the most probable sentence by pseudo-log-likelihood at temperature 1, the first of equal ones, accuracy as
the mean over the sets of a task.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmlm.data.tokenizer import Tokenizer
from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.tasks import babylm_sets as sets
from jaxmlm.tasks.choices import Choice, Outcome, averages, evaluation, rows_of
from jaxmlm.tasks.file_formats import json_lines, named, texts_of
from jaxmlm.tasks.metrics import spearman
from jaxmlm.training.task import Eval

FULL = "full_eval"
FAST = "fast_eval"
_OLDER = ("blimp_filtered", "supplement_filtered", "glue_filtered", "blimp", "supplement", "glue", "msgs")
"""Directories of 2023's and 2024's data, which have neither of the two above."""


class Row(NamedTuple):
    """A row of a task.

    Attributes:
        choice: its sentences.
        answers: what a prediction file calls each of them.
        ratio: of a wug, how often people chose the first; else 0.

    """

    choice: Choice
    answers: tuple[str, ...]
    ratio: float = 0.0


class ZeroShot(NamedTuple):
    """A task that is scored without training.

    Attributes:
        full: its directory in full_eval.
        fast: its directory in fast_eval; empty: it is not there.
        read: the row in a JSON object; of which file, and the place for errors.
        sizes: rows of each set, as in full_eval.
        fast_size: rows of each set in fast_eval; None: as in full_eval.
        stage: what the pipeline calls it; empty: its name here.

    """

    full: str
    fast: str
    read: Callable[[Any, str, str], Row]
    sizes: Mapping[str, int]
    fast_size: int | None = None
    stage: str = ""


def _pair(item: Any, file: str, where: str) -> Row:
    good, bad = texts_of(item, ("sentence_good", "sentence_bad"), where, "BLiMP lines")
    if "field" in item:
        name, field = texts_of(item, ("UID", "linguistics_term"), where, "BLiMP lines")
    else:  # of the supplement, whose lines name neither
        name = file
        field = ""
    return Row(Choice(name, field, (good, bad), (0, 0)), (good, bad))


def _ewok(item: Any, file: str, where: str) -> Row:
    names = ("Domain", "Context1", "Target1", "Target2")
    domain, context, *targets = texts_of(item, names, where, "EWoK lines")
    options = tuple(f"{context} {target}" for target in targets)
    choice = Choice(domain, "", options, (len(context),) * 2)
    return Row(choice, choice.scored)


def _entity(item: Any, file: str, where: str) -> Row:
    (prefix,) = texts_of(item, ("input_prefix",), where, "lines of entity tracking")
    answers = item.get("options")
    number = item.get("numops")
    texts = isinstance(answers, list) and len(answers) > 1 and all(isinstance(answer, str) for answer in answers)
    if not texts or not isinstance(number, int):
        raise InputError(f"{where}: no list 'options' of several texts, or no number 'numops', in entity tracking")
    options = tuple(prefix + answer for answer in answers)
    choice = Choice(f"{file}_{number}_ops", file, options, (len(prefix),) * len(options))
    return Row(choice, tuple(answers))


def _wug(name: str) -> Callable[[Any, str, str], Row]:
    def read(item: Any, file: str, where: str) -> Row:
        (text,) = texts_of(item, ("sentences",), where, "lines of wugs")
        both = tuple(text.split("\t"))
        ratio = item.get("ratio")
        if len(both) != 2 or isinstance(ratio, bool) or not isinstance(ratio, int | float):
            raise InputError(f"{where}: expected two 'sentences', a tab between them, and a number 'ratio'")
        return Row(Choice(name, "", both, (0, 0)), both, float(ratio))

    return read


_COMPS = {
    "comps_base": "base",
    "comps_wugs": "wugs",
    "comps_wugs_dist-before": "wugs_dist_before",
    "comps_wugs_dist-in-between": "wugs_dist_in_between",
}


def _comps(item: Any, file: str, where: str) -> Row:
    names = ("prefix_acceptable", "prefix_unacceptable", "property_phrase")
    good, bad, phrase = texts_of(item, names, where, "lines of COMPS")
    options = (f"{good} {phrase}", f"{bad} {phrase}")
    return Row(Choice(_COMPS.get(file, file), "", options, (len(good) + 1, len(bad) + 1)), options)


TASKS: dict[str, ZeroShot] = {
    "blimp": ZeroShot("blimp_filtered", "blimp_fast", _pair, sets.BLIMP, 200),
    "supplement": ZeroShot("supplement_filtered", "supplement_fast", _pair, sets.SUPPLEMENT, 50, "blimp"),
    "ewok": ZeroShot("ewok_filtered", "ewok_fast", _ewok, sets.EWOK, 100),
    "entity_tracking": ZeroShot("entity_tracking", "entity_tracking_fast", _entity, sets.ENTITY_TRACKING),
    "wug_adj": ZeroShot("wug_adj_nominalization", "wug_adj_nominalization", _wug("wug_adj"), {"wug_adj": 200}),
    "wug_past": ZeroShot("wug_past_tense", "wug_past_tense", _wug("wug_past"), {"wug_past": 50}),
    "comps": ZeroShot("comps", "", _comps, sets.COMPS),
}
"""The tasks by name, in the order of the pipeline; reading times and age of acquisition are not among them."""
_NEEDED = ("blimp", "supplement")


def root_of(directory: str | Path, fast: bool = False) -> Path:
    """The directory full_eval or fast_eval of BabyLM's evaluation data.

    Args:
        directory: `evaluation_data`, or the one that it lies in.
        fast: whether the small sets are meant, by which checkpoints are compared along a run.

    Raises:
        InputError: it is not there, or these are the data of a year before 2025.

    """
    directory = expanded(directory)
    part = FAST if fast else FULL
    for parent in (directory, directory / "evaluation_data"):
        if (parent / part).is_dir():
            return parent / part
    if not directory.is_dir():
        raise InputError(f"babylm: {directory} is not a directory: name BabyLM's evaluation_data")
    there = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    if directory.name in (FULL, FAST):
        hint = f"name the directory above it, {directory.parent}"
    elif set(there) & set(_OLDER):
        hint = "these are the data of 2023 or 2024, whose sets are others: get evaluation_data of 2025 or 2026"
    else:
        hint = "name BabyLM's evaluation_data of 2025 or 2026"
    raise InputError(f"babylm: {directory} has no {part} ({_listed(there)}): {hint}")


def tasks_in(directory: str | Path, fast: bool = False, tasks: Sequence[str] = ()) -> tuple[str, ...]:
    """The tasks that are scored.

    Args:
        directory: BabyLM's `evaluation_data`.
        fast: whether the small sets are meant.
        tasks: those that are asked for; none: those that are there.

    Raises:
        InputError: a task is unknown, or missing and asked for; or BLiMP or its supplement is missing.

    """
    root = root_of(directory, fast)
    if wrong := [name for name in tasks if name not in TASKS]:
        raise InputError(f"babylm_tasks: no task {wrong[0]!r}; there are {', '.join(TASKS)}")
    every = {name: part for name, task in TASKS.items() if (part := task.fast if fast else task.full)}
    there = tuple(name for name, part in every.items() if named(root / part, ".jsonl"))
    if lacking := [name for name in tasks or _NEEDED if name not in there]:
        missing = ", ".join(f"{name} ({every[name]})" if name in every else name for name in lacking)
        raise InputError(f"babylm: {root} lacks {missing}; of BabyLM's tasks it has {_listed(there)}")
    return tuple(name for name in there if not tasks or name in tasks)


def missing_from(directory: str | Path, fast: bool = False) -> str:
    """The tasks that BabyLM counts and the directory lacks, with their directories; empty: none."""
    there = tasks_in(directory, fast)
    parts = {name: task.fast if fast else task.full for name, task in TASKS.items()}
    return ", ".join(f"{name} ({part})" for name, part in parts.items() if part and name not in there)


def read(directory: str | Path, name: str, fast: bool = False) -> list[Row]:
    """The rows of a task.

    Raises:
        InputError: a set is missing or unknown, or a row is broken: with file and line.

    """
    task = TASKS[name]
    root = root_of(directory, fast)
    part = root / (task.fast if fast else task.full)
    rows = [task.read(item, path.stem, where) for path in named(part, ".jsonl") for where, item in json_lines(path)]
    found = {row.choice.set for row in rows}
    wanted = set(_sizes(task, fast))
    if lacking := sorted(wanted - found):
        raise InputError(f"{part}: {len(lacking)} of the {len(wanted)} sets are missing: {_listed(lacking)}")
    if strange := sorted(found - wanted):
        raise InputError(f"{part}: not a set of {name} of 2025 or 2026: {_listed(strange)}")
    return rows


def size(name: str, fast: bool = False) -> int:
    """The official number of rows of a task.

    >>> size("blimp"), size("supplement"), size("blimp", fast=True)
    (59875, 5218, 13400)
    """
    return sum(_sizes(TASKS[name], fast).values())


def notes_on(rows: Sequence[Row], name: str, fast: bool = False) -> list[str]:
    """A note where the number of rows is not BabyLM's, whose own check refuses such predictions."""
    wanted = size(name, fast)
    if len(rows) == wanted:
        return []
    return [f"{name}: {len(rows):,} rows, officially {wanted:,}: BabyLM's leaderboard refuses their predictions"]


def _sizes(task: ZeroShot, fast: bool) -> dict[str, int]:
    """Rows of each set; the fast entity tracking has its regular part only."""
    sizes = dict(task.sizes)
    if fast and task.read is _entity:
        sizes = {name: size for name, size in sizes.items() if name.startswith("regular")}
    return {name: task.fast_size for name in sizes} if fast and task.fast_size else sizes


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more


class Prepared(NamedTuple):
    """A task for one tokenizer: its evaluation, and notes on its rows."""

    eval: Eval
    notes: list[str]


def prepare(
    rows: Sequence[Row],
    name: str,
    tokenizer: Tokenizer,
    *,
    batch: int,
    most: int,
    fast: bool = False,
    pll_word: bool = False,
) -> Prepared:
    """The evaluation of a masked language model (`.logits_at`) on a task.

    Scores: "accuracy" as the pipeline counts it, "accuracy_ties_half", where equal sentences and those that the
    tokenizer cannot distinguish count one half (as by `--blimp`), "same", how many it cannot distinguish, and
    "field/<name>" and "set/<name>" as "accuracy". Of wugs "spearman": between the model's odds and people's.
    `Eval.save` writes predictions.json.

    Args:
        rows: as `read` gives them.
        name: of the task.
        tokenizer: of the model.
        batch: masked copies in a model pass.
        most: tokens of the longest row; longer ones lose the beginning of their context.
        fast: whether the rows are those of fast_eval.
        pll_word: see `likelihood.Copies`.

    """
    choices = [row.choice for row in rows]
    encoded = rows_of(choices, tokenizer, most)
    score = _correlation if name.startswith("wug") else _accuracy

    def save(outcome: Outcome, directory: Path) -> None:
        text = json.dumps(predictions(rows, outcome, odds=name.startswith("wug")))
        (directory / "predictions.json").write_text(text, encoding="utf-8")

    made = evaluation(choices, encoded, tokenizer, batch, lambda outcome: score(rows, outcome), save, pll_word=pll_word)
    notes = notes_on(rows, name, fast)
    if encoded.cut:
        total = len(encoded.ids)
        notes.append(f"{name}: {encoded.cut:,} of {total:,} sentences have over {most} tokens: their beginning is cut")
    return Prepared(made, notes)


def place_of(name: str, fast: bool = False) -> Path:
    """Where the pipeline keeps the predictions of a task, below results/MODEL/REVISION.

    >>> place_of("supplement").as_posix()
    'zero_shot/mlm/blimp/supplement_filtered'
    """
    task = TASKS[name]
    return Path("zero_shot", "mlm", task.stage or name, task.fast if fast else task.full)


def predictions(rows: Sequence[Row], outcome: Outcome, odds: bool) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What the pipeline's predictions.json holds: for each set the chosen sentences, in order.

    Args:
        rows: the rows.
        outcome: what the model made of them.
        odds: whether each has the probability of the first sentence of two, as wugs have.

    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    numbers = {row.choice.set: count() for row in rows}
    first = _first_share(outcome)
    for row, chosen, share in zip(rows, outcome.chosen.tolist(), first.tolist(), strict=True):
        name = row.choice.set
        line = {"id": f"{name}_{next(numbers[name])}", "pred": row.answers[chosen]}
        more = {"prob": share} if odds else {}
        found.setdefault(name, {"predictions": []})["predictions"].append(line | more)
    return found


def _first_share(outcome: Outcome) -> np.ndarray:
    """The probability of the first option of each choice among its options."""
    shifted = np.exp(outcome.nats - outcome.nats.max(1, keepdims=True))
    return shifted[:, 0] / shifted.sum(1)


def _accuracy(rows: Sequence[Row], outcome: Outcome) -> dict[str, float]:
    choices = [row.choice for row in rows]
    theirs = averages(choices, (outcome.chosen == 0).astype(float))
    ours = averages(choices, outcome.right)["accuracy"]
    rest = {name: value for name, value in theirs.items() if name != "accuracy"}
    return {
        "accuracy": theirs["accuracy"],
        "accuracy_ties_half": ours,
        "same": float(outcome.same.sum()),
        **rest,
    }


def _correlation(rows: Sequence[Row], outcome: Outcome) -> dict[str, float]:
    ratios = np.array([row.ratio for row in rows])
    return {"spearman": spearman(ratios, _first_share(outcome))}
