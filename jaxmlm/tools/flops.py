"""The floating-point operations of a run's training step, for `plan`, `bench` and the dry run of a study."""

from jaxmlm.models.flops import Flops, flops
from jaxmlm.runs.run import Run


def step_flops(run: Run, vocab: int) -> Flops:
    """The operations of the forward pass over the rows of one step.

    Args:
        run: the run; an example is as many rows as its masking has views.
        vocab: the size of the vocabulary.

    """
    masking = run.masking
    length = run.data.length
    predictions = min(length, round(masking.mean_predicted * length / masking.views))
    return flops(run.model, vocab, run.loop.batch * masking.views, length, predictions)
