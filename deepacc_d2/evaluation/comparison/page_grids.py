"""Grids and parallel coordinates of a comparison's page: one row, or one line, per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, denver_order
from deepacc_d2.evaluation.comparison.page_figure import (
    SCALE,
    Plot,
    add_heatmap,
    esc,
    grid_figure,
    nested,
    new_figure,
)
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.settings import MISSING, show
from deepacc_d2.evaluation.tally import ERRORS


def parallel_plot(comparison: Comparison) -> Plot | None:
    """Draws parallel coordinates over the settings that vary, colored by validation map50.

    Not for fewer than three runs or two settings.
    """
    table, settings = comparison.table, comparison.settings
    rows = [i for i in range(len(table)) if not math.isnan(table["val_map50"].iloc[i])]
    dimensions = []
    for key in settings.parameters:
        values = [settings.varying[key][row] for row in rows]
        if len({str(value) for value in values}) > 1:
            dimensions.append(_dimension(settings.labels[key], values))
    if len(rows) < 3 or not dimensions:
        return None
    scores = [float(table["val_map50"].iloc[row]) for row in rows]
    for metric in ("val_map50", "test_map50", "test_aer"):
        column = table[metric].iloc[rows]
        if column.notna().all():
            dimensions.append({"label": metric, "values": column.round(2).tolist()})
    figure = new_figure(margin={"l": 130, "r": 40, "t": 60, "b": 30})
    figure.add_parcoords(
        dimensions=dimensions,
        line={
            "color": scores,
            "colorscale": SCALE,
            "showscale": True,
            "colorbar": {"title": {"text": "val map50, %"}, "thickness": 14},
        },
        labelfont={"size": 13},
    )
    note = (
        "One line per run. Drag along an axis to select runs, drag its name to move it; "
        "a double click undoes."
    )
    return Plot("Parallel coordinates", figure, note)


def class_plot(comparison: Comparison) -> Plot | None:
    """Draws the AP at IoU 0.5 of every class, classes by Denver group, for every tested run."""
    tested = [run for run in comparison.runs if (run.test or {}).get("per_class")]
    if not tested:
        return None
    names = [CLASSES[k] for k in denver_order()]
    z = [
        [_cell((run.test or {})["per_class"].get(name), "ap50") for name in names] for run in tested
    ]
    figure = grid_figure(len(tested))
    add_heatmap(
        figure,
        z,
        "AP, %",
        x=list(range(len(names))),
        y=[esc(run.name) for run in tested],
        customdata=[names] * len(tested),
        hovertemplate="%{y}<br>class %{customdata}: AP %{z:.1f} %<extra></extra>",
        **{"xgap": 1, "ygap": 1},
    )
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, tickangle=0)
    start = 0
    for group, members in DENVER_GROUPS.items():
        middle = start + (len(members) - 1) / 2
        figure.add_annotation(
            x=middle, y=0, yref="paper", yshift=-14, text=f"<b>{group}</b>", showarrow=False
        )
        start += len(members)
        if start < len(names):
            figure.add_vline(x=start - 0.5, line={"color": "white", "width": 4})
    return Plot("AP by class", figure, "Test split, IoU 0.5. Empty: no chromosome of that class.")


def group_error_plots(comparison: Comparison) -> list[Plot]:
    """Draws, per kind of error, errors over the chromosomes of each Denver group."""
    tested = [run for run in comparison.runs if (run.test or {}).get("per_group")]
    if not tested:
        return []
    groups = list(DENVER_GROUPS)
    kinds = [kind for kind in ERRORS if kind != "errors"]
    counts = np.array(
        [
            [
                [_cell((run.test or {})["per_group"].get(g), kind) for g in groups]
                for kind in (*kinds, "gt")
            ]
            for run in tested
        ],
        dtype=float,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = 100 * counts[:, :-1] / counts[:, -1:]
    plots = []
    parts = [("all errors", rates.sum(axis=1))]
    parts += [(kind.replace("_", " "), rates[:, i]) for i, kind in enumerate(kinds)]
    for title, shown in parts:
        figure = grid_figure(len(tested))
        add_heatmap(
            figure,
            nested(shown),
            x=groups,
            y=[esc(run.name) for run in tested],
            texttemplate="%{z:.1f}" if len(tested) <= 30 else "",
            hovertemplate="%{y}<br>group %{x}: %{z:.1f} % of its chromosomes<extra></extra>",
        )
        figure.update_xaxes(type="category")
        plots.append(Plot(title, figure, "Percent of the chromosomes of the group, test split."))
    return plots


def _dimension(label: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis of the parallel coordinates: numbers as they are or by rank, texts by name."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        distinct = sorted(set(values))
        if len(distinct) > 8:
            return _number_axis(label, values)
    else:
        distinct = sorted(set(values), key=lambda v: (v == MISSING, str(v)))
    return {
        "label": esc(label),
        "values": [distinct.index(v) for v in values],
        "tickvals": list(range(len(distinct))),
        "ticktext": [esc(show(v)) for v in distinct],
    }


def _number_axis(label: str, values: Sequence[float]) -> dict[str, Any]:
    if min(values) > 0 and max(values) >= 20 * min(values):
        low, high = math.log10(min(values)), math.log10(max(values))
        ticks = np.linspace(low, high, 5)
        return {
            "label": esc(label),
            "values": [math.log10(v) for v in values],
            "tickvals": ticks.tolist(),
            "ticktext": [f"{10**tick:.2g}" for tick in ticks],
        }
    return {"label": esc(label), "values": list(values)}


def _cell(row: Any, key: str) -> float | None:
    value = row.get(key) if isinstance(row, dict) else None
    return float(value) if isinstance(value, (int, float)) else None
