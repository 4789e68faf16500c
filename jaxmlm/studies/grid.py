"""What a study is: a base run, the axes on which its cells differ, and how every cell is evaluated."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlm.checks import NATURAL, check_numbers
from jaxmlm.directories import working_directory
from jaxmlm.errors import InputError
from jaxmlm.fields import replace_path
from jaxmlm.runs.evaluation import Bound, TextBound
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.layer_probes import Probes
from jaxmlm.runs.run import SAME_RUN, Run, identity
from jaxmlm.runs.zero_shot import ZeroShot
from jaxmlm.studies.estimate import Assumed
from jaxmlm.studies.labels import changes_encoder


@dataclass(frozen=True)
class Vary:
    """One axis of a study."""

    path: str = "masking.rate"
    """Dotted path of the run that is varied."""
    values: tuple[Any, ...] = (0.15, 0.40, 0.80)
    """Values to compare."""
    names: tuple[str, ...] = ()
    """Names of the values in the report; needed where a value is a part of the run, as a model."""

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError(f"vary {self.path}: give at least one value")
        if self.names and len(self.names) != len(self.values):
            raise InputError(f"vary {self.path}: {len(self.values)} values but {len(self.names)} names")
        if len(set(self.names)) < len(self.names):
            raise InputError(f"vary {self.path}: the names {', '.join(self.names)} are not all different")
        plain = (str, int, float, type(None))
        if not self.names and (value := next((v for v in self.values if not isinstance(v, plain)), None)) is not None:
            raise InputError(f"vary {self.path}: a value is a {type(value).__name__}: give the values names")
        if not self.names and len(set(self.values)) < len(self.values):
            raise InputError(f"vary {self.path}: the values {', '.join(map(str, self.values))} are not all different")
        if slashed := [name for name in self.named if "/" in str(name)]:
            raise InputError(
                f"vary {self.path}: {slashed[0]!r} cannot name the directory of a cell: give the values names without /"
            )

    @property
    def named(self) -> dict[Any, Any]:
        """The values by the names that they have in the report."""
        return dict(zip(self.names or self.values, self.values, strict=True))


@dataclass(frozen=True)
class Study:
    """A grid of pre-trainings and how each is evaluated."""

    workdir: str = "runs/study"
    title: str = "Which masking rate is best?"
    """Title of the report; {text}, {tokens} and {encoder} in it become what is used."""
    note: str = ""
    """One line at the top of the report."""
    run: Run = field(default_factory=Run)
    """The base run; every cell is this run but for the varied values and the seed."""
    vary: tuple[Vary, ...] = (Vary(),)
    seeds: tuple[int, ...] = (0,)
    """Pre-training seeds: the replicates that error bars are made of."""
    control: bool = True
    """Whether to evaluate the encoder without pre-training as well; each one, where the model is varied."""
    bound: Bound | None = field(default_factory=Bound)
    """Likelihood bound on the held-out text; None: there is none."""
    general: str | None = None
    """Text files of another kind than the run's, on which the bound is measured too: what an encoder forgot."""
    zero_shot: ZeroShot | None = None
    """Evaluation on minimal pairs; None: there is none."""
    probes: Probes | None = None
    """Linear probes of every layer on a treebank; None: there are none."""
    finetune: tuple[Finetune, ...] = ()
    """Tasks to fine-tune every cell on; on the command line --no-finetune leaves them to a later start."""
    reuse: tuple[str, ...] = ()
    """Directories of other studies, whose finished cells are copied where they are the same pre-training."""
    sentence: str = "The old teacher walked to the river and sat down under a tall tree to read her letters."
    """Sentence that the report shows as each masking leaves it."""
    assume: Assumed | None = None
    """The machine that --dry-run estimates for; by default this one."""
    cells: str | None = None
    """I/N: do the I-th (from 0) of N shares of the cells and draw no report, on machines that share the workdir."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "workdir", working_directory(self.workdir))
        check_numbers(self, "", seeds=NATURAL)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds are {self.seeds}: give one or more, each once")
        if self.cells is not None:
            part, _, parts = self.cells.partition("/")
            if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
                raise InputError(f"cells is {self.cells!r}: write I/N, from 0/N to N-1/N")
        paths = [axis.path for axis in self.vary]
        for one, other in itertools.permutations(paths, 2):
            if f"{other}.".startswith(f"{one}."):
                raise InputError(f"vary {one} and vary {other} set the same: make one axis of them, with names")
        if same := [path for path in paths if any(f"{path}.".startswith(f"{one}.") for one in SAME_RUN)]:
            raise InputError(f"vary {same[0]}: runs that differ in nothing else give the same: leave that axis out")
        if "loop.steps" in paths and (self.run.loop.budget or "loop.budget" in paths):
            raise InputError("vary loop.steps and loop.budget: a budget decides the steps: leave one of them out")
        if self.general and self.bound is None:
            raise InputError("general is a text for the likelihood bound, which is left out: leave out general too")
        _check_tasks(self.finetune)

    @property
    def general_bound(self) -> TextBound | None:
        """The bound on the general text, with the settings of that on the held-out one."""
        return TextBound(**asdict(self.bound), text=self.general) if self.bound and self.general else None

    @property
    def other_names(self) -> dict[str, str]:
        """What one may look for on the command line -> the option that there is: a varied path has its values."""
        return {axis.path: f"vary.{number}.values" for number, axis in enumerate(self.vary)}

    @property
    def ineffective(self) -> dict[str, str]:
        """Options that would change nothing, as every cell has another value there -> the option that does."""
        return {
            **{f"run.{axis.path}": f"vary.{number}.values" for number, axis in enumerate(self.vary)},
            "run.loop.seed": "seeds",
            "run.workdir": "workdir",
        }


def _check_tasks(finetune: Sequence[Finetune]) -> None:
    """Refuse what a report has no place for, and what a cell of a study does not do."""
    tasks = [config.task_name for config in finetune]
    if len(set(tasks)) < len(tasks):
        twice = next(task for task in tasks if tasks.count(task) > 1)
        raise InputError(f"finetune: {twice} is there twice, and a report has one place for it: make two studies")
    for config in finetune:
        ignored = next(
            (name for name in ("intermediate_task", "test", "predict", "workdir") if getattr(config, name)), None
        )
        if ignored:
            raise InputError(
                f"finetune {config.task}: a study has no use for {ignored}: leave it out, and give it to `jaxmlm "
                "finetune` on the cell that you want it of"
            )


class Cell(NamedTuple):
    """A point of the grid: its name, the varied values by name, the seed, its run.

    A control is not trained and keeps only the varied values that shape the encoder. If runs start from `init`, there
    is one control: the given encoder with its own tokenizer, shared by all seeds.
    """

    name: str
    values: dict[str, Any]
    seed: int
    run: Run
    control: bool = False


def cells_of(study: Study) -> list[Cell]:
    """The cells, the values' combinations first, the controls last."""
    directory = Path(study.workdir)
    store = study.run.data.store or str(directory / "store")
    base = replace_path(study.run, "data.store", store)

    def cell(values: dict[str, Any], seed: int, control: bool = False) -> Cell:
        run = replace_path(base, "loop.seed", seed)
        for axis in study.vary:
            if axis.path in values:
                run = replace_path(run, axis.path, axis.named[values[axis.path]])
        if control:
            run = replace_path(replace_path(run, "loop.steps", 0), "loop.budget", None)
            run = _as_given(run, study.seeds[0]) if run.init else run
        words = [f"{path.rsplit('.', 1)[-1]}={value}" for path, value in values.items()]
        name = ",".join([*(["control"] if control else []), *words, f"seed={seed}"])
        return Cell(name, values, seed, replace_path(run, "workdir", str(directory / "cells" / name)), control)

    def grid(axes: Sequence[Vary]) -> list[dict[str, Any]]:
        paths = [axis.path for axis in axes]
        return [dict(zip(paths, point, strict=True)) for point in itertools.product(*(axis.named for axis in axes))]

    cells = [cell(values, seed) for values in grid(study.vary) for seed in study.seeds]
    if study.control:
        untrained = grid([axis for axis in study.vary if changes_encoder(axis.path)])
        cells += [cell(values, seed, control=True) for values in untrained for seed in study.seeds]
    return cells


def _as_given(run: Run, seed: int) -> Run:
    """The run of a control that is the encoder as it was given: without new words, so with a store of its own."""
    run = replace_path(run, "loop.seed", seed)
    if not run.data.new_words:
        return run
    return replace_path(replace_path(run, "data.new_words", 0), "data.store", f"{run.data.store}-as-given")


def original(cell: Cell, cells: Sequence[Cell]) -> Cell:
    """The first cell whose pre-training is the same: equal pre-trainings are run once."""
    same = identity(cell.run)
    return next(other for other in cells if identity(other.run) == same)
