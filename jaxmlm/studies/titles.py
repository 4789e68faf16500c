"""The title of a study's report, and where its cells were trained."""

from collections import Counter
from collections.abc import Iterable

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


def distinct(values: Iterable[str]) -> str:
    """The value that all cells share; if they differ, each value with its number of cells.

    >>> distinct(["a", "a"]), distinct(["a", "b", "a"])
    ('a', 'a (2 cells); b (1 cell)')
    """
    counts = Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({n} cell{'s' if n > 1 else ''})" for value, n in counts.items())
