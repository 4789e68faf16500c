"""On which examples the cells of a study are evaluated, by their SHA-256: a study names files, and they can change."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jaxmlm.errors import InputError
from jaxmlm.runs.evaluation import TextBound, general_texts
from jaxmlm.runs.finetune_config import Finetune
from jaxmlm.runs.finetuning import sha256_of_examples
from jaxmlm.runs.layer_probes import Probes
from jaxmlm.runs.results import Result
from jaxmlm.runs.zero_shot import BabyLM, ZeroShot, sha256_of_sentences
from jaxmlm.studies.grid import Cell, Study
from jaxmlm.studies.jobs import Job, ResultKey, jobs, key_of, results_of
from jaxmlm.studies.results import read_cell_results
from jaxmlm.tasks import probing
from jaxmlm.tasks.downstream import examples_sha256

Examples = Mapping[ResultKey, str]
"""SHA-256 of the examples of each evaluation that reads files; generated ones and the run's own text have none."""


def examples_of(study: Study) -> Examples:
    """The hashes of the examples that the files have now. Each file is read once, whatever the number of seeds."""
    by_setting: dict[tuple[str, str | None], str | None] = {}
    found = {}
    for job in jobs(study):
        setting = job.key.task, job.key.settings
        if setting not in by_setting:
            by_setting[setting] = _sha256(job, study.run.data.length)
        if (sha256 := by_setting[setting]) is not None:
            found[job.key] = sha256
    return found


def _sha256(job: Job, length: int) -> str | None:
    match what := job.what:
        case Finetune():
            return sha256_of_examples(what)
        case ZeroShot() | BabyLM():
            return sha256_of_sentences(what)
        case Probes():
            return examples_sha256(probing.treebank(what.treebank))
        case TextBound():
            return examples_sha256(list(general_texts(what, length)))
    return None


def of_others(results: Iterable[Result], examples: Examples) -> list[Result]:
    """The results that are of other examples than these; those of earlier versions do not say of which they are."""
    return [
        one for one in results if one.examples is not None and examples.get(key_of(one), one.examples) != one.examples
    ]


def check_examples(study: Study, cells: Iterable[Cell], examples: Examples) -> None:
    """Refuse to add to a study whose results are of other examples.

    Raises:
        InputError: one of its results is.

    """
    results: dict[Path, Sequence[Result]] = {Path(cell.run.workdir): results_of(cell.run.workdir) for cell in cells}
    results[Path(study.workdir)] = read_cell_results(Path(study.workdir) / "results.jsonl")
    for directory, lines in results.items():
        if others := of_others(lines, examples):
            raise InputError(
                f"{directory} holds results on other examples of {others[0].task} than its files have now: put them "
                "back, or name another --workdir"
            )
