"""Colors of runs, the same in every plot of a comparison, told apart by color-blind readers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.colors import to_hex

from deepacc_d2 import palette
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.settings import show
from deepacc_d2.evaluation.plots import GROUP_COLORS

CATEGORIES = (*GROUP_COLORS.values(), palette.DARK)
"""After Okabe and Ito, as in the other figures of this project."""


@dataclass(frozen=True)
class Coloring:
    """How runs are colored.

    Attributes:
        by: what the colors stand for: ``group``, ``preset`` or ``val_map50``.
        colors: of each run, as ``#rrggbb``.
        labels: what each run is called in a legend; runs of one label have one color, unless the
            colors stand for ``val_map50``.
    """

    by: str
    colors: tuple[str, ...]
    labels: tuple[str, ...]


def color_runs(comparison: Comparison) -> Coloring:
    """Colors runs by group where there are few, else by preset, else by validation map50."""
    groups = [""] * len(comparison.runs)
    for group in comparison.groups:
        for row in group.rows:
            groups[row] = group.label
    presets = [show(value) for value in comparison.settings.values("preset")]
    for by, labels in (("group", groups), ("preset", presets)):
        kinds = list(dict.fromkeys(labels))
        if len(kinds) <= len(CATEGORIES) and (by == "group" or len(kinds) > 1):
            colors = tuple(CATEGORIES[kinds.index(label)] for label in labels)
            return Coloring(by, colors, tuple(labels))
    scores = comparison.table["val_map50"].tolist()
    names = tuple(run.name for run in comparison.runs)
    return Coloring("val_map50", tuple(scale_colors(scores)), names)


def scale_colors(values: Sequence[float]) -> list[str]:
    """Returns a color of cividis for each value: the largest is dark blue, the least yellow."""
    known = [value for value in values if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    span = high - low or 1.0
    return [
        palette.LIGHT
        if math.isnan(value)
        else to_hex(colormaps["cividis_r"](0.08 + 0.92 * (value - low) / span))
        for value in values
    ]
