"""Probes over the layers: the table and the figure."""

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from jaxmlm.studies import figures

Scores = Mapping[str, Mapping[str, float]]


def series(scores: Mapping[str, float], name: str) -> list[float]:
    """The scores "<name>/0", "<name>/1", ... in order.

    >>> series({"layer/1": 0.9, "layer/0": 0.5, "majority": 0.2}, "layer")
    [0.5, 0.9]
    """
    found = {int(key.split("/")[1]): value for key, value in scores.items() if key.startswith(f"{name}/")}
    return [found[layer] for layer in sorted(found)]


def table(probes: Scores) -> Table:
    """Accuracy (%) of each probe at each layer; in brackets that of the untrained encoder."""
    made = Table(title="linear probes: accuracy, % (untrained encoder); layer 0 is the embeddings")
    layers = max((len(series(scores, "layer")) for scores in probes.values()), default=0)
    for name in ("probe", "majority", *(str(layer) for layer in range(layers))):
        made.add_column(name, justify="left" if name == "probe" else "right")
    for name, scores in probes.items():
        pairs = zip(series(scores, "layer"), series(scores, "untrained"), strict=True)
        cells = [f"{100 * own:.1f} ({100 * other:.1f})" for own, other in pairs]
        made.add_row(name, f"{100 * scores['majority']:.1f}", *cells)
    return made


def draw(probes: Scores, path: Path) -> None:
    """Write the figure: a panel for each probe, the encoder, the untrained one and the majority over the layers."""
    curves = {
        name: ({which: series(scores, which) for which in ("layer", "untrained")}, scores["majority"])
        for name, scores in probes.items()
    }
    figures.save(figures.over_layers(curves), path)
