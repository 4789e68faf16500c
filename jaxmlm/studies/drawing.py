"""What the figures of a report share: labels, colours and groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from jaxmlm.plotting import PALETTE
from jaxmlm.studies.results import ScoreSeries, StudyResults


def colours_of(results: StudyResults) -> dict[str, str]:
    """One colour for each value of the first path, the same in every figure; a scale when the values are many."""
    values = list(dict.fromkeys(results.short_label(label) for label in results.labels))
    colours: Sequence[str] = PALETTE
    if len(values) > len(PALETTE):
        scale = matplotlib.colormaps["plasma"](np.linspace(0.22, 0.85, len(values)))
        colours = [to_hex(colour) for colour in scale]
    of_value = dict(zip(values, colours, strict=False))
    return {label: of_value[results.short_label(label)] for label in results.labels}


def group_numbers(results: StudyResults) -> dict[str, int]:
    """The number of each label's group, by which its marker and its dashes are chosen."""
    return {label: number for number, labels in enumerate(results.groups.values()) for label in labels}


def labels_in(results: StudyResults, of: Mapping[Any, ScoreSeries]) -> list[str]:
    """The labels, controls last, that have a score in one of these series."""
    return [label for label in results.all_labels if any(label in series.by_label for series in of.values())]
