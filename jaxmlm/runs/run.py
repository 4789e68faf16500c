"""The configuration of a pre-training run, and what makes two runs the same one."""

from dataclasses import dataclass, field, replace
from typing import Any

from jaxmlm.checks import POSITIVE, check_numbers
from jaxmlm.data import Data
from jaxmlm.directories import working_directory
from jaxmlm.errors import InputError
from jaxmlm.fields import describe, without
from jaxmlm.masking import Masking, SpanUnits, needs_phrases
from jaxmlm.models import EncoderConfig
from jaxmlm.parallel import Mesh
from jaxmlm.runs import epochs
from jaxmlm.runs.workdir import step_of
from jaxmlm.training import Loop, Optim


@dataclass(frozen=True)
class Run:
    """One pre-training run."""

    workdir: str = "runs/run"
    """Directory of everything that the run writes."""
    init: str | None = None
    """Encoder to continue from, with its tokenizer: the directory of a run, one in the transformers format, or the name
    of one on the Hub (hf:org/name@revision)."""
    data: Data = field(default_factory=Data)
    masking: Masking = field(default_factory=Masking)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)
    most_epochs: float | None = epochs.MANY
    """Maximum passes over the text, above which a run is refused; None: no limit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "workdir", working_directory(self.workdir))
        check_numbers(self, "", most_epochs=POSITIVE)
        if self.init and self.data.tokenizer:
            raise InputError(
                "init and data.tokenizer are both given, and an encoder goes with its own tokenizer: leave out "
                "data.tokenizer"
            )
        self.data.check_new_words(self.init)
        if not self.init:  # else the encoder's own positions count
            check_length(self.model, self.data.length)
        if self.loop.best:
            raise InputError("loop.best is for fine-tuning: what pre-training keeps is its last state: leave it out")
        units = self.masking.units
        text = self.data.length - 2  # a row begins and ends with a special token
        if isinstance(units, SpanUnits) and units.longest > text:
            raise InputError(
                f"masking.units.longest {units.longest} is longer than a row's {text} tokens of text (data.length "
                f"{self.data.length}): shorten the spans or lengthen the rows"
            )

    @property
    def needs_phrases(self) -> bool:
        """Whether the masking needs the phrases of the token store."""
        return needs_phrases(self.masking.units)

    @property
    def sizes(self) -> list[tuple[str, int, str]]:
        """What a mesh must divide, as `check_sizes` takes it; of an encoder to continue from nothing is known yet."""
        return [self.loop.rows, *([] if self.init else self.model.sizes)]

    @property
    def text(self) -> Data:
        """The data, with the tokenizer that they are to be read by."""
        if not self.init:
            return self.data
        directory, step = step_of(self.init)
        return replace(self.data, tokenizer=self.init if step is None else str(directory))


SAME_RUN = (
    "workdir",
    "most_epochs",
    "mesh",
    "data.store",
    "loop.save_every",
    "loop.keep",
    "loop.eval_every",
    "loop.log_every",
    "loop.fallback",
    "loop.sinks",
    "loop.accumulate",
    "model.remat",
    "model.logits_chunk",
)
"""What may differ between two starts of one run."""


def identity(run: Run) -> dict[str, Any]:
    """What makes two runs the same run: all that changes the result, not where or how often things are written.

    Nor how the work is cut up, which changes the last bits at most, or with dropout which bits are drawn.
    """
    unused = [] if run.needs_phrases else ["data.phrases"]
    if run.model.pool == "first":  # runs of versions without this option say nothing of it
        unused.append("model.pool")
    return without(describe(run), [*SAME_RUN, *unused])


def check_length(model: EncoderConfig, length: int) -> None:
    """Refuse rows that are longer than the encoder's table of learned positions."""
    if model.positions == "learned" and length > model.max_positions:
        raise InputError(
            f"data.length {length} is above model.max_positions {model.max_positions}: raise that, shorten the "
            "rows, or take --model.positions rope"
        )
