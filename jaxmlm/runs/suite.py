"""Fine-tuning on several tasks of a benchmark, and the average that the benchmark takes of them."""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from jaxmlm.directories import expanded
from jaxmlm.errors import InputError
from jaxmlm.runs.comparison import benchmark_score
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.finetuning import check, finetune
from jaxmlm.runs.workdir import check_workdir, claim_workdir
from jaxmlm.tasks.registry import BENCHMARKS, benchmark_tasks, find_task


def finetune_all(checkpoint: str, configs: Sequence[Finetune]) -> dict[str, Any]:
    """Fine-tune a checkpoint on every one of these tasks; all their rows are read before the first one begins.

    A task whose intermediate task is another one of these continues from its best model.

    Args:
        checkpoint: a run's directory, one of its steps, or a directory in the `transformers` format.
        configs: the tasks, each with its settings.

    Returns:
        Of one task what `finetune` returns. Of several of GLUE or BabyLM: {"rows": all results, "tasks": for each the
        scores of its best setting, means over its seeds, and "score", what the benchmark counts;
        "average": the mean of these; of GLUE "without_wnli": the same without WNLI, as in papers since BERT's;
        "notes": what is not complete}.

    Raises:
        InputError: a task is not one of GLUE or BabyLM, two are not of one benchmark, or wrong as in `finetune`.

    """
    if len(configs) == 1:
        return finetune(checkpoint, configs[0])
    names = [config.task_name for config in configs]
    _benchmark_of(names)
    if len(set(names)) < len(names):
        raise InputError(f"a task is named twice: {', '.join(names)}")
    for config in configs:
        if config.workdir:
            check_workdir(expanded(config.workdir).parent, "glue.json", {})
        check(config)
    parents = dict.fromkeys(expanded(config.workdir).parent for config in configs if config.workdir)
    with ExitStack() as held:
        for parent in parents:
            held.enter_context(claim_workdir(parent, "fine-tuning"))
        return _suite(checkpoint, configs)


def _benchmark_of(names: Sequence[str]) -> str:
    """The benchmark that all these tasks are of."""
    found = {name: find_task(name).benchmark for name in names}
    if wrong := [name for name in names if not found[name]]:
        every = " or ".join(BENCHMARKS.values())
        raise InputError(f"{wrong[0]} is not a task of {every}, and only those have an average: name it alone")
    if len(set(found.values())) > 1:
        raise InputError(f"{', '.join(names)}: tasks of several benchmarks have no average: name them by benchmark")
    return found[names[0]]


def _suite(checkpoint: str, configs: Sequence[Finetune]) -> dict[str, Any]:
    """Fine-tune on tasks that were checked, in directories that this command holds."""
    names = [config.task_name for config in configs]
    benchmark = _benchmark_of(names)
    rows = []
    tasks = {}
    notes = []
    models = {}
    for config in sorted(configs, key=lambda config: config.intermediate_task not in (None, config.task)):
        task = config.task_name
        first = config.intermediate_task
        if first in models or first == task:
            result = finetune(models.get(first, checkpoint), replace(config, intermediate_task=None))
        else:
            result = finetune(checkpoint, config)
        models[task] = result.get("model")
        best = result["summary"][0]
        finished = [row for row in result["rows"] if row["settings"] == best["settings"] and row["scores"]]
        if not finished:
            raise InputError(f"{task}: every run diverged, so there is no average: lower --learning-rate")
        scores = {name: statistics.fmean(row["scores"][name] for row in finished) for name in finished[0]["scores"]}
        values = [benchmark_score(row) for row in finished]
        tasks[task] = scores | {
            "score": statistics.fmean(values),
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "n": best["n"],
            "degenerate": best["degenerate"],
            **config.mark,
        }
        rows += result["rows"]
        notes += [f"{task}: {note}" for note in result["notes"]]
    tasks = {name: tasks[name] for name in names}
    missing = [name for name in benchmark_tasks(benchmark) if name not in tasks]
    if missing:
        notes.append(f"the average is partial: without {', '.join(missing)}")
    score = {name: found["score"] for name, found in tasks.items()}
    average = {"average": statistics.fmean(score.values())}
    if benchmark == "GLUE":
        others = [value for name, value in score.items() if name != "wnli"]
        average["without_wnli"] = statistics.fmean(others)
    return {"rows": rows, "tasks": tasks, **average, "notes": notes}
