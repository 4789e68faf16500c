"""Probes over the layers: of a cell of a study, and the table and the figure of a checkpoint's."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

from jaxmlm.checks import COUNT, NATURAL, check_choices, check_numbers, integers
from jaxmlm.errors import InputError
from jaxmlm.runs.loading import LoadedModel, longest_input
from jaxmlm.runs.tables import Column, Tables
from jaxmlm.runs.zero_shot import to_row
from jaxmlm.tasks import probing

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Probes:
    """Linear probes of a treebank, by which the cells of a study are evaluated: they mask nothing.

    A probe is fitted for every layer, and the last layer's counts.
    """

    treebank: str
    """Directory of a Universal Dependencies treebank."""
    sentences: int = 4000
    """Sentences to take from the train file, and a quarter as many from the dev file; 0: all."""
    words: int = 20_000
    """Words to take from the train file for the probes of words, and a quarter as many from the dev file."""
    pool: Literal["mean", "first"] = "mean"
    """Vector of a word or sentence: the mean over its tokens, or its first token (of a sentence <cls>)."""
    length: int = 128
    """Sentences of more tokens are left out."""

    def __post_init__(self) -> None:
        check_choices(self, "probes.")
        check_numbers(self, "probes.", sentences=NATURAL, words=COUNT, length=integers(8))


def check_probes(directory: str) -> probing.Treebank:
    """Read a treebank.

    Raises:
        InputError: its files are missing or broken, or this is one of several hosts.

    """
    if (many := jax.process_count()) > 1:
        raise InputError(f"the probes of a treebank run on one host, and this is one of {many}: start it on one alone")
    return probing.treebank(directory)


def probe(loaded: LoadedModel, config: Probes, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The probes of an encoder: a result.

    Returns:
        Its scores are "<probe>", the accuracy at the last layer, and "<probe>/layer/<layer>", "<probe>/majority",
        "<probe>/train" and "<probe>/dev" as in `probing.probes`.

    """
    started = time.perf_counter()
    length = min(config.length, longest_input(loaded.config))
    sizes = probing.Sizes(config.sentences or None, config.words, config.pool, length)
    encoders = {"layer": loaded.encoder}
    found = probing.probes(encoders, probing.treebank(config.treebank), loaded.tokenizer, sizes, mesh)
    scores = {name: series(of_probe, "layer")[-1] for name, of_probe in found.items()}
    scores |= {f"{name}/{key}": value for name, of_probe in found.items() for key, value in of_probe.items()}
    return to_row("probe", "treebank", "part of speech", scores, started)


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
    from jaxmlm.plotting import over_layers, save  # matplotlib, which loading a model does without

    save(over_layers(curves), path)
