"""The picture of an :class:`~deepacc_d2.evaluation.explain.explanation.Explanation`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from deepacc_d2 import palette
from deepacc_d2.evaluation.explain.explanation import (
    BROKEN,
    Explanation,
    disagreement_columns,
    disagreements,
    summarize,
)
from deepacc_d2.evaluation.explain.panels import (
    AGREE,
    AGREE_WRONG,
    MISSED,
    OUTCOME_COLORS,
    draw_metaphase,
    draw_plane,
    zoom_on,
)
from deepacc_d2.evaluation.plots import GROUP_COLORS

_IMAGE, _PLANE, _EDGE = 9.6, 6.4, 0.2  # inch: widths of the panels at most, and of the margin
_ROWS_SHOWN = 16
_ROW = 0.2  # inch, of the table


def plot_explanation(explanation: Explanation, image: np.ndarray, *, title: str = "") -> Figure:
    """Draws one metaphase with its boxes, the features in the plane and the disagreements.

    Args:
        explanation: of the image.
        image: gray uint8 (H, W), the original.
        title: a line on top.
    """
    zoom = zoom_on(explanation, image)
    ratio = (zoom[3] - zoom[2]) / (zoom[1] - zoom[0])
    height = float(np.clip(_IMAGE * ratio, 7.2, 12.0))
    wide = float(np.clip(height / ratio, 5.5, _IMAGE))
    notes = summarize(explanation)
    columns = 12 if wide > 8 else 9
    handles = _handles(explanation)
    top, foot = 0.42 + 0.2 * len(notes), 0.22 + 0.2 * -(-len(handles) // columns)
    lines = disagreements(explanation)
    table = 0.35 + _ROW * (min(len(lines), _ROWS_SHOWN) + 2)
    left = _EDGE + wide + 0.6
    size = (left + _PLANE + _EDGE, top + height + foot)
    figure = Figure(figsize=size)

    def add_axes(x: float, y: float, width: float, height: float, **options: Any) -> Axes:
        place = (x / size[0], y / size[1], width / size[0], height / size[1])
        return figure.add_axes(place, **options)

    margin, line = _EDGE / size[0], 1 / size[1]
    figure.text(margin, 1 - 0.09 * line, title, va="top", fontsize=13, fontweight="bold")
    figure.text(
        *(margin, 1 - 0.36 * line), "\n".join(notes), va="top", fontsize=10, linespacing=1.35
    )
    metaphase = add_axes(_EDGE, foot, wide, height, anchor="NW")
    plane = add_axes(left, foot + table + 0.35, _PLANE, height - table - 0.35)
    below = add_axes(left, foot, _PLANE, table - 0.1)
    draw_metaphase(metaphase, explanation, image, zoom)
    draw_plane(plane, explanation)
    _draw_table(below, explanation, lines, table - 0.1)
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(margin, 0.0),
        ncols=columns,
        fontsize=9.5,
        frameon=False,
        borderaxespad=0.3,
        columnspacing=1.6,
        handletextpad=0.5,
    )
    return figure


# Table and legend


def _draw_table(
    axes: Axes, explanation: Explanation, lines: Sequence[Sequence[str]], height: float
) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(height, 0))
    if not lines:
        if len(explanation.stages) > 1:
            axes.text(0, 0.15, "All stages name the same class everywhere.", fontsize=10)
        return
    heads = disagreement_columns(explanation)
    columns = (0.0, *np.linspace(0.05, 0.73, len(heads) - 2), 0.82)
    size = 9.5 if len(heads) < 8 else 8.0
    y = 0.12
    for x, name in zip(columns, heads, strict=True):
        axes.text(x, y, name, fontsize=size, fontweight="bold", va="center")
    axes.hlines(y + _ROW * 0.55, 0, 1, color="black", lw=0.8)
    for line in lines[:_ROWS_SHOWN]:
        y += _ROW
        for x, cell in zip(columns, line, strict=True):
            color = OUTCOME_COLORS[line[-1]] if x in (columns[0], columns[-1]) else "black"
            axes.text(x, y, cell, fontsize=size, va="center", color=color)
    if len(lines) > _ROWS_SHOWN:
        y += _ROW
        text = f"... and {len(lines) - _ROWS_SHOWN} more"
        axes.text(columns[1], y, text, fontsize=9.5, va="center", color=palette.SOFT)


def _handles(explanation: Explanation) -> list[Any]:
    """Returns the legend: what boxes and marks mean, then the Denver groups."""

    def box(color: str, lw: float, label: str, ls: Any = "-") -> Rectangle:
        return Rectangle(
            *((0, 0), 1, 1), facecolor="none", edgecolor=color, linewidth=lw, ls=ls, label=label
        )

    handles: list[Any] = []
    known, differs = explanation.true_classes is not None, explanation.differs
    agree = "stages agree" if len(explanation.stages) > 1 else "detection"
    handles.append(box(AGREE, 0.7, f"{agree}, right" if known else agree))
    if explanation.true_classes is not None:
        wrong = ~differs & (explanation.true_classes != explanation.classes)
        if wrong.any():
            handles.append(box(AGREE_WRONG, 1.1, f"{agree}, wrong (named / true)"))
    present = {explanation.outcome(i) for i in np.flatnonzero(differs)}
    handles += [
        box(color, 2.4, f"class changes, {kind}")
        for kind, color in OUTCOME_COLORS.items()
        if kind in present
    ]
    if explanation.missed is not None and explanation.missed.any():
        handles.append(box(MISSED, 1.3, "missed", ls=(0, (4, 2))))
    style: dict[str, Any] = {"ls": "", "color": palette.SOFT}
    handles.append(Line2D([], [], marker="x", label="global center", markersize=6, **style))
    if explanation.centers is not None:
        handles.append(Line2D([], [], marker="*", label="local center", markersize=10, **style))
        if explanation.centers.paired.any():
            handles.append(Line2D([], [], marker="D", label="its partner", markersize=5, **style))
        if (explanation.centers.wrong | explanation.centers.wrong_partner).any():
            handles.append(
                Line2D(
                    *([], []),
                    marker="*",
                    markersize=10,
                    markeredgecolor=OUTCOME_COLORS[BROKEN],
                    markeredgewidth=1.5,
                    label="of another class",
                    **style,
                )
            )
    handles += [
        Line2D([], [], marker="o", ls="", markersize=6, color=color, label=group)
        for group, color in GROUP_COLORS.items()
    ]
    return handles
