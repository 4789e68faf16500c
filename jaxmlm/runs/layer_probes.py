"""Probes over the layers: the table and the figure."""

from collections.abc import Mapping
from pathlib import Path

from jaxmlm.plotting import over_layers, save
from jaxmlm.runs.tables import Column, Tables

Scores = Mapping[str, Mapping[str, float]]


def series(scores: Mapping[str, float], name: str) -> list[float]:
    """The scores "<name>/0", "<name>/1", ... in order.

    >>> series({"layer/1": 0.9, "layer/0": 0.5, "majority": 0.2}, "layer")
    [0.5, 0.9]
    """
    found = {int(key.split("/")[1]): value for key, value in scores.items() if key.startswith(f"{name}/")}
    return [found[layer] for layer in sorted(found)]


def table(probes: Scores) -> Tables:
    """Accuracy (%) of each probe at each layer; in brackets that of the untrained encoder."""
    layers = max((len(series(scores, "layer")) for scores in probes.values()), default=0)
    columns = [Column("majority", [f"{100 * scores['majority']:.1f}" for scores in probes.values()])]
    for layer in range(layers):
        pairs = [(scores[f"layer/{layer}"], scores[f"untrained/{layer}"]) for scores in probes.values()]
        columns.append(Column(str(layer), [f"{100 * own:.1f} ({100 * other:.1f})" for own, other in pairs]))
    title = "linear probes: accuracy, % (untrained encoder); layer 0 is the embeddings"
    return Tables(title, [Column("probe", list(probes))], columns)


def draw(probes: Scores, path: Path) -> None:
    """Write the figure: a panel for each probe, the encoder, the untrained one and the majority over the layers."""
    curves = {
        name: ({which: series(scores, which) for which in ("layer", "untrained")}, scores["majority"])
        for name, scores in probes.items()
    }
    save(over_layers(curves), path)
