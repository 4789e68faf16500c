"""What a directory is that is not a checkpoint, and which path or command gives the model that was meant."""

import re
from pathlib import Path

from jaxmlm.data.manifest import MANIFEST
from jaxmlm.errors import InputError

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What a model of the Hugging Face Hub may be called."""


def not_a_checkpoint(folder: Path) -> InputError:
    """The refusal of a folder that has neither a run.json nor a config.json."""
    if (folder / "run.json").is_file():
        return InputError(f"{folder} is a run of jaxmlm and needs no import: every command reads it as it is")
    return InputError(
        f"{folder} is not the folder of a run (no run.json) nor of a transformers model: {_advice(folder)}"
    )


def _advice(folder: Path) -> str:
    if not folder.exists():
        if _HUB.fullmatch(str(folder)):
            return f"there is no such folder; if it is a model of the Hugging Face Hub, name it hf:{folder}"
        return "there is no such folder: give the --workdir of a pre-training, or a folder with a config.json"
    if not folder.is_dir():
        return f"it is a file: give its folder, {folder.parent}"
    if (folder / "study.json").is_file():
        cells = _runs(folder)
        if not cells:
            return "it is the folder of a study without a cell that has begun: start the study"
        return f"it is the folder of a study; give one of its cells: {_some(cells)}"
    if (folder / "finetune.json").is_file():
        if (folder / "model" / "run.json").is_file():
            return f"it is the --workdir of a fine-tuning; its best model is {folder / 'model'}"
        return "it is the --workdir of a fine-tuning that has no model yet: let it finish"
    for above in folder.parents[:3]:  # the checkpoints of a run, or what lies within one
        if (above / "run.json").is_file():
            return f"it is a part of a run; give {above}, or one of its steps: {above / 'checkpoints' / 'STEP'}"
    if (folder / MANIFEST).is_file():
        return "it is a token store, which holds text and no model: give the --workdir of a pre-training"
    if found := _runs(folder):
        return f"there are such folders in it: {_some(found)}"
    return "give the --workdir of a pre-training, or a folder with a config.json"


def _runs(folder: Path) -> list[Path]:
    """The checkpoints one to three folders deeper, as in a study, a fine-tuning of several tasks or the Hub's cache."""
    names = ("*/run.json", "*/*/run.json", "*/config.json", "*/*/config.json")
    return sorted({path.parent for name in names for path in folder.glob(name)})


def _some(folders: list[Path]) -> str:
    return ", ".join(map(str, folders[:3])) + (f" and {len(folders) - 3} more" if folders[3:] else "")
