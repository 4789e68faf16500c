"""Where the log goes beside its JSON lines and the terminal: TensorBoard, Weights & Biases, a user's own sink."""

import importlib.util
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxmlm.errors import InputError
from jaxmlm.logs import Sink, scalars
from jaxmlm.user_code import find_object
from jaxmlm.wording import install_command

MakeSink = Callable[[Path, str, int], Sink]
"""Makes a sink from the directory of a run, the name of its stage, and the step from which it starts or resumes."""


class TensorBoard:
    """Event files in DIRECTORY/tensorboard. A resumed run hides what was written after its checkpoint."""

    def __init__(self, directory: Path, stage: str, step: int):
        from tensorboardX import SummaryWriter  # type: ignore[import-not-found]

        # The step in its name: two files of one second would else be one, and the first would be lost.
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1, filename_suffix=f".{step}")

    def write(self, values: dict[str, Any], step: int) -> None:
        """Write the numbers of a line."""
        for name, value in scalars(values).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases, which the directory names; WANDB_MODE=offline and WANDB_PROJECT work as usual.

    A resumed run continues the same W&B run, whose id is in DIRECTORY/wandb_id. The step is a metric of its own:
    W&B refuses steps that come again, as those after a checkpoint do.
    """

    def __init__(self, directory: Path, stage: str, step: int):
        import wandb  # type: ignore[import-not-found]

        known = directory / "wandb_id"
        if not known.is_file():
            directory.mkdir(parents=True, exist_ok=True)
            known.write_text(uuid.uuid4().hex[:12])
        self._run: Any = wandb.init(
            id=known.read_text(), resume="allow", name=f"{directory.name} {stage}", dir=str(directory)
        )
        self._run.define_metric("*", step_metric="step")

    def write(self, values: dict[str, Any], step: int) -> None:
        """Write the numbers of a line."""
        self._run.log({**scalars(values), "step": step})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


SINKS: dict[str, tuple[MakeSink, str]] = {"tensorboard": (TensorBoard, "tensorboardX"), "wandb": (WandB, "wandb")}
"""The sinks with a name of their own, each with the package that it needs; the extra is called as the sink."""


def find_sinks(names: Sequence[str]) -> list[MakeSink]:
    """The sinks of these names, on every process, so that a missing package stops all of them.

    Args:
        names: "tensorboard", "wandb", or FILE.py:NAME or MODULE:NAME of a class or function (see `MakeSink`).

    Raises:
        InputError: there is no such sink, or its package is missing.

    """
    return [_find(name) for name in names]


def _find(name: str) -> MakeSink:
    if name in SINKS:
        make, package = SINKS[name]
        if importlib.util.find_spec(package) is None:
            raise InputError(f"loop.sinks: {name} needs {package}: {install_command(name)}")
        return make
    if ":" not in name:
        raise InputError(
            f"loop.sinks: no sink {name!r}: there are {', '.join(SINKS)}; name one of your own as FILE.py:NAME"
        )
    return find_object(name, "loop.sinks: a sink")
