"""The title of a study's report."""

from jaxmlm.studies.estimate import training_tokens
from jaxmlm.studies.grid import Study


def titled(study: Study) -> str:
    """The title of a report, made from the text, the tokens and the encoder that are used."""
    run = study.run
    if run.loop.budget:
        size = f"{run.loop.budget} of"
    else:
        tokens = training_tokens(run, study.assume)
        size = f"{tokens / 1e6:.3g} M" if tokens >= 1e6 else f"{tokens / 1e3:.3g} k"
    texts = ["the generated sample" if is_generated(text) else text.rsplit("/", 1)[-1] for text in run.data.texts]
    parts = {
        "{text}": " + ".join(texts),
        "{tokens}": size,
        "{encoder}": str(run.init) if run.init else f"{run.model.layers} x {run.model.width}",
    }
    title = study.title
    for name, value in parts.items():
        title = title.replace(name, value)
    return title


def is_generated(text: str) -> bool:
    """Whether a text is the generated sample."""
    return text.startswith("sample:")
