"""What a directory is that is not a checkpoint, and which path or command gives the model that was meant."""

import re
from pathlib import Path

from jaxmlm.data.manifest import MANIFEST
from jaxmlm.errors import InputError

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What a model of the Hugging Face Hub may be called."""


def not_a_checkpoint(directory: Path) -> InputError:
    """The refusal of a directory that has neither a run.json nor a config.json."""
    if (directory / "run.json").is_file():
        return InputError(f"{directory} is a run of jaxmlm and needs no import: every command reads it as it is")
    if not directory.exists():
        hub = f"; if it is a model of the Hugging Face Hub, name it hf:{directory}"
        usual = ": give the --workdir of a pre-training, or a directory with a config.json"
        return InputError(f"there is no directory {directory}{hub if _HUB.fullmatch(str(directory)) else usual}")
    return InputError(
        f"{directory} is not the directory of a run (no run.json) nor of a transformers model: {_advice(directory)}"
    )


def _advice(directory: Path) -> str:
    if not directory.is_dir():
        return f"it is a file: give its directory, {directory.parent}"
    if (directory / "study.json").is_file():
        cells = _runs(directory)
        if not cells:
            return "it is the directory of a study without a cell that has begun: start the study"
        return f"it is the directory of a study; give one of its cells: {_some(cells)}"
    if (directory / "finetune.json").is_file():
        if (directory / "model" / "run.json").is_file():
            return f"it is the --workdir of a fine-tuning; its best model is {directory / 'model'}"
        return "it is the --workdir of a fine-tuning that has no model yet: let it finish"
    for above in directory.parents[:3]:  # the checkpoints of a run, or what lies within one
        if (above / "run.json").is_file():
            return f"it is a part of a run; give {above}, or one of its steps: {above / 'checkpoints' / 'STEP'}"
    if (directory / MANIFEST).is_file():
        return "it is a token store, which holds text and no model: give the --workdir of a pre-training"
    if found := _runs(directory):
        return f"there are such directories in it: {_some(found)}"
    return "give the --workdir of a pre-training, or a directory with a config.json"


def _runs(directory: Path) -> list[Path]:
    """The checkpoints one to three levels deeper, as in a study, a fine-tuning of several tasks or the Hub's cache."""
    names = ("*/run.json", "*/*/run.json", "*/config.json", "*/*/config.json")
    return sorted({path.parent for name in names for path in directory.glob(name)})


def _some(directories: list[Path]) -> str:
    return ", ".join(map(str, directories[:3])) + (f" and {len(directories) - 3} more" if directories[3:] else "")
