"""Fine-tuning on several tasks of GLUE, and the average that the benchmark takes of them."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxmlm.errors import InputError
from jaxmlm.runs.finetuning import Finetune, check, finetune
from jaxmlm.runs.workdir import check_workdir
from jaxmlm.tasks import glue


def finetune_all(checkpoint: str, configs: Sequence[Finetune]) -> dict[str, Any]:
    """Fine-tune a checkpoint on every one of these tasks; all their rows are read before the first one begins.

    Of one task it returns what `finetune` does. Of several of GLUE: {"rows": all lines of results, "tasks": of each
    the scores of its best setting, means over its seeds, and "score", what the benchmark counts; "average": the mean of
    these; "without_wnli": the same without WNLI, as papers since BERT's have it; "notes": what is not whole}.
    A task that starts from another one of these goes on from its best model.
    """
    if len(configs) == 1:
        return finetune(checkpoint, configs[0])
    names = [config.task for config in configs]
    if wrong := [name for name in names if name not in glue.TASKS]:
        raise InputError(f"{wrong[0]} is no task of GLUE, and an average is taken of those only: name it alone")
    if len(set(names)) < len(names):
        raise InputError(f"a task is named twice: {', '.join(names)}")
    for config in configs:
        if config.workdir:
            check_workdir(Path(config.workdir).parent, "glue.json", {})
        check(config)
    rows, tasks, notes, models = [], {}, [], {}
    for config in sorted(configs, key=lambda config: config.start not in (None, config.task)):
        if config.start in models or config.start == config.task:
            result = finetune(models.get(config.start, checkpoint), replace(config, start=None))
        else:
            result = finetune(checkpoint, config)
        models[config.task] = result.get("model")
        best = result["summary"][0]
        mine = [row for row in result["rows"] if row["settings"] == best["settings"] and row["scores"]]
        if not mine:
            raise InputError(f"{config.task}: every run diverged, so there is no average: lower --learning-rate")
        scores = {name: statistics.fmean(row["scores"][name] for row in mine) for name in mine[0]["scores"]}
        values = [glue.average({config.task: row["scores"]}) for row in mine]
        tasks[config.task] = scores | {
            "score": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None,
            "n": best["n"], "degenerate": best["degenerate"], **config.source.mark,
        }  # fmt: skip
        rows += result["rows"]
        notes += [f"{config.task}: {note}" for note in result["notes"]]
    tasks = {name: tasks[name] for name in names}
    missing = [name for name in glue.TASKS if name not in tasks]
    if missing:
        notes.append(f"the average is partial: without {', '.join(missing)}")
    score = {name: found["score"] for name, found in tasks.items()}
    others = [value for name, value in score.items() if name != "wnli"]
    average = {"average": statistics.fmean(score.values()), "without_wnli": statistics.fmean(others)}
    return {"rows": rows, "tasks": tasks, **average, "notes": notes}
