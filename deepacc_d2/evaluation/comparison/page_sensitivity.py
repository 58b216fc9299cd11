"""Sensitivity and interaction plots of a comparison's page, as Plotly figures."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from deepacc_d2.evaluation.comparison.colors import Coloring
from deepacc_d2.evaluation.comparison.page_figure import (
    INK,
    NAMES,
    POINT,
    Plot,
    add_heatmap,
    add_runs,
    esc,
    metric_name,
    nested,
    new_figure,
)
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.sensitivity import (
    Interaction,
    Sensitivity,
    find_interactions,
    find_sensitivities,
)
from deepacc_d2.evaluation.comparison.settings import show

VALIDATION = ("val_map50", "val_aer")
TEST = ("test_map50", "test_aer")
MOST_NAMED = 8
"""Values up to which each is named at the axis."""


def sensitivity_plots(
    comparison: Comparison, coloring: Coloring, metrics: Sequence[str]
) -> list[Plot]:
    """Draws metrics against every varied setting.

    Args:
        comparison: the runs.
        coloring: of the points.
        metrics: columns of the table of runs, such as :data:`VALIDATION`.

    Returns:
        A plot for each metric of each setting, by setting.
    """
    plots: dict[str, list[Plot]] = {}
    for metric in metrics:
        for found in find_sensitivities(comparison.table, comparison.settings, metric):
            figure = _sensitivity(found, comparison, coloring)
            title = f"{found.label}: {metric_name(metric)}"
            plots.setdefault(found.label, []).append(Plot(title, figure, _sentence(found.note)))
    return [plot for own in plots.values() for plot in own]


def interaction_plots(comparison: Comparison, metric: str = "val_map50") -> list[Plot]:
    """Draws the mean of a metric over each pair of settings that form a grid."""
    return [
        Plot(f"{found.labels[0]} and {found.labels[1]}", _interaction(found, metric))
        for found in find_interactions(comparison.table, comparison.settings, metric)
    ]


def _sensitivity(found: Sensitivity, comparison: Comparison, coloring: Coloring) -> go.Figure:
    figure = new_figure(
        xaxis_title=esc(found.label), yaxis_title=NAMES[found.metric], height=390, showlegend=True
    )
    if found.levels:
        _draw_levels(figure, found)
    if found.running:
        figure.add_scatter(
            x=[x for x, _ in found.running],
            y=[y for _, y in found.running],
            mode="lines",
            line={"color": INK, "width": 2.5},
            name="running median",
            hovertemplate="median %{y:.2f} %<extra></extra>",
        )
    _draw_runs(figure, found, comparison, coloring)
    if found.log:
        figure.update_xaxes(type="log", dtick="D2")
    elif not found.numeric:
        figure.update_xaxes(type="category")
    _name_values(figure, found)
    return figure


def _draw_runs(
    figure: go.Figure, found: Sensitivity, comparison: Comparison, coloring: Coloring
) -> None:
    labels = list(dict.fromkeys(coloring.labels[row] for row in found.rows))
    # A color for each run would say nothing that the axis does not.
    several = coloring.by != "val_map50" and 1 < len(labels) < len(found.rows)
    for label in labels if several else [""]:
        own = [i for i, row in enumerate(found.rows) if label in ("", coloring.labels[row])]
        color = coloring.colors[found.rows[own[0]]] if several else POINT
        add_runs(
            figure,
            [comparison.runs[found.rows[i]].name for i in own],
            f"{esc(found.label)} %{{x}}: %{{y:.2f}} %",
            x=[found.values[i] for i in own],
            y=[found.scores[i] for i in own],
            name=esc(label) or "single runs",
            marker={"opacity": 0.75, "color": color},
        )


def _name_values(figure: go.Figure, found: Sensitivity) -> None:
    """Names the values that were tried, and how many runs stand behind the mean at each."""
    if found.levels and len(found.levels) <= MOST_NAMED:
        figure.update_xaxes(
            tickvals=[level.value for level in found.levels],
            ticktext=[
                f"{esc(show(level.value))}<br><i>n = {level.n}</i>" for level in found.levels
            ],
            tickangle=0,
        )


def _draw_levels(figure: go.Figure, found: Sensitivity) -> None:
    x = [level.value for level in found.levels]
    if any(level.n > 1 for level in found.levels) and found.numeric:
        figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[
                *(level.high for level in found.levels),
                *(level.low for level in reversed(found.levels)),
            ],
            fill="toself",
            fillcolor="rgba(0, 114, 178, 0.13)",
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            name="range",
        )
    figure.add_scatter(
        x=x,
        y=[level.mean for level in found.levels],
        mode="lines+markers" if found.numeric else "markers",
        line={"color": INK, "width": 2.5},
        marker={"size": 10, "symbol": "diamond", "color": INK},
        customdata=[level.n for level in found.levels],
        name="mean",
        hovertemplate="mean of %{customdata}: %{y:.2f} %<extra></extra>",
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _interaction(found: Interaction, metric: str) -> go.Figure:
    text = [
        ["" if not n else f"{mean:.1f}<br>n={n}" for mean, n in zip(means, ns, strict=True)]
        for means, ns in zip(found.mean.tolist(), found.n.tolist(), strict=True)
    ]
    figure = new_figure(
        xaxis_title=esc(found.labels[0]),
        yaxis_title=esc(found.labels[1]),
        height=max(300, 120 + 60 * len(found.rows)),
    )
    add_heatmap(
        figure,
        nested(found.mean),
        x=[esc(show(value)) for value in found.columns],
        y=[esc(show(value)) for value in found.rows],
        text=text,
        texttemplate="%{text}",
        hovertemplate=f"{esc(found.labels[0])} %{{x}}, {esc(found.labels[1])} %{{y}}<br>"
        "%{z:.2f} %<extra></extra>",
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False)
    return figure
