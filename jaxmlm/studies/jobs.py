"""What is evaluated of every cell of a study, and by which key its result is found again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxmlm.fields import describe
from jaxmlm.runs.evaluation import Bound
from jaxmlm.runs.finetune_config import Finetune, settings
from jaxmlm.runs.layer_probes import Probes
from jaxmlm.runs.results import Result, read_results
from jaxmlm.runs.zero_shot import BabyLM, ZeroShot
from jaxmlm.studies.grid import Study, cells_of
from jaxmlm.tasks.mlm import HELD_OUT_RATES, named


class ResultKey(NamedTuple):
    """What distinguishes the results of a cell; `settings` is the configuration as JSON."""

    stage: str
    task: str
    tuning_seed: int | None = None
    settings: str | None = None


class Job(NamedTuple):
    """One evaluation of a cell: the key that its result will have, and what it evaluates."""

    key: ResultKey
    what: float | Bound | ZeroShot | BabyLM | Probes | Finetune


def jobs(study: Study) -> Iterator[Job]:
    """The evaluations of every cell; those at a masking rate are further columns of the loss matrix."""
    for rate in _own_rates(study):
        yield Job(ResultKey("heldout", f"mlm at {named(rate)}"), rate)
    if study.bound is not None:
        yield Job(ResultKey("bound", "heldout", settings=_settings(study.bound)), study.bound)
    if (general := study.general_bound) is not None:
        yield Job(ResultKey("general", "text", settings=_settings(general)), general)
    for stage, task, config in study.zero_shot.parts if study.zero_shot else ():
        yield Job(ResultKey(stage, task, settings=_settings(config)), config)
    if study.probes is not None:
        yield Job(ResultKey("probe", "treebank", settings=_settings(study.probes)), study.probes)
    for config in study.finetune:
        for seed in config.seeds:
            yield Job(ResultKey("finetune", config.task_name, seed, settings(config)), config)


def keys(study: Study) -> list[ResultKey]:
    """The keys of the results that every cell has when it is done."""
    return [ResultKey("pretrain", "mlm"), ResultKey("heldout", "mlm"), *(job.key for job in jobs(study))]


def key_of(result: Result) -> ResultKey:
    """The key of a result."""
    return ResultKey(result.stage, result.task, result.tuning_seed, result.settings)


def results_of(workdir: str | Path) -> list[Result]:
    """The results in the directory of a cell; none where it was not started."""
    return [Result.from_json(line) for line in read_results(Path(workdir) / "results.jsonl")]


def _settings(config: Bound | ZeroShot | BabyLM | Probes) -> str:
    plain = {key: value for key, value in describe(config).items() if key != "class"}
    return json.dumps(plain, sort_keys=True)


def _own_rates(study: Study) -> list[float]:
    """The rates that cells are trained at, without those that the loss matrix has anyway."""
    rates = {cell.run.masking.rate for cell in cells_of(study) if not cell.control}
    return sorted({rate for rate in rates if isinstance(rate, float | int)} - set(HELD_OUT_RATES))
