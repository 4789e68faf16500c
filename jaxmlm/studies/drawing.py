"""What the figures of a report share: colours, groups and legends."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from jaxmlm.plotting import PALETTE
from jaxmlm.studies.results import StudyResults


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


def legend(figure: Figure, handles: Mapping[str, Any], columns: int) -> None:
    """A legend under the figure."""
    columns = max(1, min(columns, len(handles)))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)


def legend_columns(results: StudyResults) -> int:
    """How many labels fit side by side: those of several paths are long."""
    return 5 if len(results.paths) < 2 else 2
