"""The interactive plots of a comparison's page, as Plotly figures."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from deepacc_d2.evaluation.comparison.colors import Coloring
from deepacc_d2.evaluation.comparison.curves import loss_names, training_curve, validation_curve
from deepacc_d2.evaluation.comparison.page_figure import (
    INK,
    NAMES,
    Plot,
    add_runs,
    esc,
    metric_name,
    new_figure,
)
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.settings import show
from deepacc_d2.evaluation.comparison.table import Group

MOST_GROUPS = 24
"""Groups that are shown as bars at most."""
FEW_EPOCHS = 12
"""Epochs up to which each has its tick."""


def bar_plots(comparison: Comparison, coloring: Coloring) -> list[Plot]:
    """Draws, per metric, a bar for each group with a dot for each of its runs."""
    plots = []
    for metric in ("test_aer", "test_map50", "val_map50", "test_map50_max"):
        known = [group for group in shown_groups(comparison) if group.metrics[metric].n]
        if not known:
            continue
        figure = new_figure(xaxis_title=NAMES[metric], height=110 + 34 * len(known))
        labels = [esc(_short(group)) for group in known]
        spreads = [group.metrics[metric] for group in known]
        figure.add_bar(
            x=[spread.mean for spread in spreads],
            y=labels,
            orientation="h",
            marker={"color": [coloring.colors[group.rows[0]] for group in known], "opacity": 0.75},
            error_x={
                "type": "data",
                "array": [0 if math.isnan(spread.sd) else spread.sd for spread in spreads],
                "color": INK,
                "thickness": 1.6,
            },
            customdata=[
                [spread.n, "unknown of one run" if math.isnan(spread.sd) else f"{spread.sd:.2f}"]
                for spread in spreads
            ],
            hovertemplate="%{y}<br>mean %{x:.2f} %<br>sd %{customdata[1]}, "
            "runs: %{customdata[0]}<extra></extra>",
        )
        rows = [row for group in known for row in group.rows]
        add_runs(
            figure,
            [comparison.runs[row].name for row in rows],
            "%{x:.2f} %",
            x=[comparison.table[metric].iloc[row] for row in rows],
            y=[label for label, g in zip(labels, known, strict=True) for _ in g.rows],
            marker={"color": "white", "line": {"color": INK, "width": 1.3}},
        )
        figure.update_xaxes(rangemode="tozero")
        figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
        better = "lower is better" if metric.endswith("aer") else "higher is better"
        note = (
            "Bars: mean over the runs of a group, which are the dots; whiskers: one standard "
            f"deviation; {better}."
        )
        if len(comparison.groups) > MOST_GROUPS:
            note += f" The {MOST_GROUPS} best of {len(comparison.groups)} groups by validation."
        plots.append(Plot(metric_name(metric), figure, note))
    return plots


def shown_groups(comparison: Comparison) -> list[Group]:
    """Returns the groups, in their order; of very many, the best by validation map50."""
    score = {
        group.label: group.metrics["val_map50"].mean if group.metrics["val_map50"].n else -math.inf
        for group in comparison.groups
    }
    best = sorted(comparison.groups, key=lambda group: -score[group.label])[:MOST_GROUPS]
    return [group for group in comparison.groups if group in best]


def curve_plots(comparison: Comparison, coloring: Coloring) -> list[Plot]:
    """Draws validation metrics against epochs."""
    return [
        Plot(metric_name(metric), figure)
        for metric in ("val_map50", "val_aer")
        if (figure := _curves(comparison, coloring, metric))
    ]


def loss_plots(comparison: Comparison, coloring: Coloring) -> list[Plot]:
    """Draws each loss against steps: smoothed, and as logged in faint."""
    note = "Thick: exponentially weighted mean; faint: as logged."
    return [
        Plot(name.removeprefix("train/"), figure, note)
        for name in loss_names(comparison.runs)
        if (figure := _curves(comparison, coloring, name))
    ]


def cost_plots(comparison: Comparison, coloring: Coloring) -> list[Plot]:
    """Draws what accuracy cost: training time against validation map50, and images a second."""
    table = comparison.table
    plots = []
    if table[["train_seconds", "val_map50"]].notna().all(axis=1).any():
        longest = table["train_seconds"].max()
        unit, seconds = ("hours", 3600) if longest > 7200 else ("minutes", 60)
        figure = new_figure(
            xaxis_title=f"training, {unit}",
            yaxis_title=NAMES["val_map50"],
            showlegend=coloring.by != "val_map50",
        )
        for label in dict.fromkeys(coloring.labels) if coloring.by != "val_map50" else [""]:
            rows = [i for i, own in enumerate(coloring.labels) if label in ("", own)]
            add_runs(
                figure,
                [comparison.runs[i].name for i in rows],
                f"%{{x:.3g}} {unit}, %{{y:.2f}} %",
                x=(table["train_seconds"].iloc[rows] / seconds).tolist(),
                y=table["val_map50"].iloc[rows].tolist(),
                name=esc(label),
                showlegend=bool(label),
                marker={"size": 11, "color": [coloring.colors[i] for i in rows]},
            )
        figure.update_xaxes(rangemode="tozero")
        plots.append(Plot("Time and accuracy", figure, "Time of the training batches alone."))
    if table["images_per_second"].notna().any():
        figure = new_figure(
            xaxis_title="images a second in training",
            height=110 + 26 * max(len(table), 3),
        )
        figure.add_bar(
            x=table["images_per_second"].tolist(),
            y=[esc(run.name) for run in comparison.runs],
            orientation="h",
            marker_color=list(coloring.colors),
            hovertemplate="%{y}<br>%{x:.2f} images a second<extra></extra>",
        )
        figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
        plots.append(Plot("Throughput", figure, "Of one process, the wait for its data included."))
    return plots


def _curves(comparison: Comparison, coloring: Coloring, name: str) -> go.Figure | None:
    validation = name.startswith("val_")
    figure = new_figure(
        xaxis_title="epochs trained" if validation else "step",
        yaxis_title=NAMES.get(name, name),
        showlegend=coloring.by != "val_map50",
    )
    shown: set[str] = set()
    longest = 0.0
    for run, color, label in zip(comparison.runs, coloring.colors, coloring.labels, strict=True):
        curve = (
            validation_curve(run, name.replace("_", "/", 1))
            if validation
            else training_curve(run, name)
        )
        if not len(curve.x):
            continue
        longest = max(longest, float(curve.x[-1]))
        common = {"legendgroup": esc(label), "name": esc(label), "x": curve.x.tolist()}
        if not validation:
            figure.add_scatter(
                **common,
                y=curve.raw.tolist(),
                mode="lines",
                line={"color": color, "width": 1},
                opacity=0.22,
                hoverinfo="skip",
                showlegend=False,
            )
        figure.add_scatter(
            **common,
            y=curve.smooth.tolist(),
            mode="lines+markers" if validation else "lines",
            marker={"size": 5},
            line={"color": color, "width": 2},
            meta=esc(run.name),
            hovertemplate="%{meta}<br>%{x}: %{y:.4g}<extra></extra>",
            showlegend=label not in shown,
        )
        shown.add(label)
    if validation and longest <= FEW_EPOCHS:
        figure.update_xaxes(dtick=1)
    return figure if shown else None


def _short(group: Group) -> str:
    if len(group.keys) == 1:
        return show(next(iter(group.keys.values())))
    return group.label.removeprefix("preset=")
