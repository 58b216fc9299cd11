"""What the interactive plots of a comparison's page have in common."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

NAMES = {
    "val_map50": "validation map50, %",
    "val_aer": "validation AER, %",
    "test_map50": "test map50, %",
    "test_map50_max": "test map50_max, %",
    "test_aer": "test AER, %",
}
INK, GRID, POINT = "#222222", "#e4e4e4", "#0072b2"
HEIGHT = 400
SCALE = "Cividis_r"
"""More is darker, also for color-blind readers and in gray."""


@dataclass(frozen=True)
class Plot:
    """A figure of the page.

    Attributes:
        title: short, also the name of its tab; plain text.
        figure: what Plotly draws.
        note: what the reader must know of it; plain text.
    """

    title: str
    figure: go.Figure = field(repr=False)
    note: str = ""


def new_figure(**layout: Any) -> go.Figure:
    """Returns an empty figure in the style of the page; it takes the width that there is."""
    legend = layout.get("showlegend", False)
    given = {
        "height": HEIGHT,
        "margin": {"l": 60, "r": 16, "t": 34, "b": 96 if legend else 54},
        **layout,
    }
    figure = go.Figure(
        layout={
            "template": "none",
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
            "autosize": True,
            "hoverlabel": {"namelength": -1},
            "showlegend": False,
            "legend": {
                "orientation": "h",
                **{"yref": "container", "y": 0.01, "yanchor": "bottom"},
                **{"xref": "container", "x": 0.5, "xanchor": "center"},
            },
            **given,
        }
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(gridcolor=GRID, zeroline=False, automargin=True, linecolor="#999999")
        update(title={"standoff": 10})
    return figure


def grid_figure(rows: int, **layout: Any) -> go.Figure:
    """Returns a figure for a heatmap of runs, the first one on top, columns named above."""
    figure = new_figure(
        height=90 + 26 * max(rows, 3), margin={"l": 60, "r": 16, "t": 50, "b": 30}, **layout
    )
    figure.update_xaxes(side="top", showgrid=False, showline=False)
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False, showline=False)
    return figure


def add_heatmap(figure: go.Figure, values: Any, unit: str = "%", **options: Any) -> None:
    """Adds a heatmap: more is darker, and what is unknown stays empty."""
    look = {"colorscale": SCALE, "hoverongaps": False, "xgap": 2, "ygap": 2}
    bar = {"title": {"text": unit}, "thickness": 14}
    figure.add_heatmap(**{"z": values, "colorbar": bar, **look, **options})


def add_runs(figure: go.Figure, names: Sequence[str], hover: str, **options: Any) -> None:
    """Adds a dot for each run, whose name is shown under the pointer.

    Args:
        figure: to draw into.
        names: of the runs.
        hover: what is shown below the name.
        **options: of Plotly's scatter, such as ``x``, ``y`` and ``marker``.
    """
    marker = {"size": 8, "line": {"color": "white", "width": 1}, **options.pop("marker")}
    figure.add_scatter(
        mode="markers",
        text=[esc(name) for name in names],
        hovertemplate=f"%{{text}}<br>{hover}<extra></extra>",
        marker=marker,
        **options,
    )


def esc(text: object) -> str:
    """Escapes a text for Plotly, whose labels understand some HTML."""
    return html.escape(str(text), quote=False)


def nested(values: np.ndarray) -> list[list[float | None]]:
    """Returns (rows, columns) as nested lists, ``None`` where a number is not finite."""
    return [[value if np.isfinite(value) else None for value in row] for row in values.tolist()]


def metric_name(metric: str) -> str:
    """Returns what a column of the table of runs is called in titles."""
    return NAMES.get(metric, metric).removesuffix(", %")
