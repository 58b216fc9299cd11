"""Still figures of a comparison, for papers: bars by group, learning curves, sensitivities."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from deepacc_d2 import palette
from deepacc_d2.evaluation.comparison.colors import Coloring, color_runs
from deepacc_d2.evaluation.comparison.curves import training_curve, validation_curve
from deepacc_d2.evaluation.comparison.page_figure import INK, NAMES, POINT, metric_name
from deepacc_d2.evaluation.comparison.page_plots import shown_groups
from deepacc_d2.evaluation.comparison.result import Comparison
from deepacc_d2.evaluation.comparison.sensitivity import Sensitivity, find_sensitivities
from deepacc_d2.evaluation.comparison.settings import show


def build_figures(comparison: Comparison) -> dict[str, Callable[[], Figure]]:
    """Returns, by file name, what draws each figure that these runs give rise to."""
    coloring = color_runs(comparison)
    table, settings = comparison.table, comparison.settings
    drawers: dict[str, Callable[[], Figure]] = {}
    if len(comparison.groups) > 1:
        drawers["groups.png"] = lambda: plot_groups(comparison, coloring)
    if any(not run.history.empty for run in comparison.runs):
        drawers["curves.png"] = lambda: plot_curves(comparison, coloring)
    chosen = {found.key: found for found in find_sensitivities(table, settings, "val_map50")}
    tested = {found.key: found for found in find_sensitivities(table, settings, "test_map50")}
    for key, found in chosen.items():
        panels = [found, *([tested[key]] if key in tested else [])]
        name = f"sensitivity_{re.sub(r'[^A-Za-z0-9._-]', '_', found.label)}.png"
        drawers[name] = lambda panels=panels: plot_sensitivity(panels)  # type: ignore[misc]
    return drawers


def plot_groups(comparison: Comparison, coloring: Coloring) -> Figure:
    """Draws mean, standard deviation and runs of each group: map50 and AER."""
    metrics = [
        metric
        for metric in ("val_map50", "test_map50", "test_aer")
        if comparison.table[metric].notna().any()
    ] or ["val_map50"]
    groups = shown_groups(comparison)
    figure = Figure(
        figsize=(4.6 * len(metrics) + 1.6, 1.6 + 0.42 * len(groups)), layout="constrained"
    )
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for y, group in enumerate(groups):
            spread = group.metrics[metric]
            if not spread.n:
                continue
            color = coloring.colors[group.rows[0]]
            axes.barh(y, spread.mean, height=0.72, color=color, alpha=0.75)
            if spread.n > 1:
                axes.errorbar(spread.mean, y, xerr=spread.sd, color=INK, lw=1.4, capsize=3)
            dots = {"s": 24, "color": "white", "edgecolor": INK, "zorder": 3}
            axes.scatter(spread.values, [y] * spread.n, **dots)
        axes.set_xlabel(NAMES[metric], fontsize=11)
        axes.set_title(
            "lower is better" if metric.endswith("aer") else "higher is better", fontsize=10
        )
        _style(axes, "x")
    labels = [group.label.removeprefix("preset=") for group in groups]
    panels[0].set_yticks(range(len(groups)), [_plain(label) for label in labels], fontsize=10)
    panels[0].set_ylim(len(groups) - 0.4, -0.6)
    note = "mean, one standard deviation, single runs"
    if len(groups) < len(comparison.groups):
        note += f"; the {len(groups)} best of {len(comparison.groups)} groups by validation"
    figure.suptitle(f"{_plain(comparison.title)}\n{note}", fontsize=12)
    return figure


def plot_curves(comparison: Comparison, coloring: Coloring) -> Figure:
    """Draws validation map50 and AER against epochs, and the loss against steps."""
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, name in zip(panels, ("val/map50", "val/aer", "train/loss"), strict=True):
        for run, color in zip(comparison.runs, coloring.colors, strict=True):
            if name.startswith("val/"):
                curve = validation_curve(run, name)
                axes.plot(curve.x, curve.smooth, color=color, lw=1.8, marker="o", ms=3.5)
            else:
                curve = training_curve(run, name)
                axes.plot(curve.x, curve.raw, color=color, lw=0.7, alpha=0.22)
                axes.plot(curve.x, curve.smooth, color=color, lw=1.8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step" if name == "train/loss" else "epochs trained", fontsize=11)
        axes.set_ylabel(NAMES.get(name.replace("/", "_"), "training loss"), fontsize=11)
        _style(axes, "both")
    kinds = dict(zip(coloring.labels, coloring.colors, strict=True))
    if coloring.by == "val_map50":
        figure.suptitle("darker: higher validation map50", fontsize=11)
    elif len(kinds) > 1:
        handles = [
            Line2D([], [], color=color, lw=2.4, label=_plain(label.removeprefix("preset=")))
            for label, color in kinds.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=10)
    return figure


def plot_sensitivity(panels: list[Sensitivity]) -> Figure:
    """Draws metrics against one setting, validation first, with what is behind each point."""
    figure = Figure(figsize=(6.2 * len(panels), 4.6), layout="constrained")
    for axes, found in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_sensitivity(axes, found)
    return figure


def _draw_sensitivity(axes: Axes, found: Sensitivity) -> None:
    values = sorted(set(found.values))
    place = (lambda value: value) if found.numeric else values.index
    axes.scatter(
        [place(value) for value in found.values],
        found.scores,
        s=30,
        color=POINT,
        alpha=0.65,
        edgecolor="white",
        linewidth=0.7,
        zorder=3,
        label="single runs",
    )
    if found.levels:
        x = [place(level.value) for level in found.levels]
        mean = [level.mean for level in found.levels]
        if found.numeric and any(level.n > 1 for level in found.levels):
            low, high = ([getattr(level, end) for level in found.levels] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=POINT, alpha=0.13, lw=0, label="range")
        line = "-" if found.numeric else ""
        axes.plot(x, mean, line, marker="D", ms=6.5, color=INK, lw=2, zorder=4, label="mean")
    if found.running:
        axes.plot(*np.transpose(found.running), color=INK, lw=2, label="running median")
    if found.log:
        axes.set_xscale("log")
    counts = {level.value: f"\nn = {level.n}" for level in found.levels}
    if not found.numeric or len(values) <= 8:
        ticks = [_plain(show(value)) + counts.get(value, "") for value in values]
        axes.set_xticks([place(value) for value in values], ticks)
        axes.minorticks_off()
    axes.set_xlabel(_plain(found.label), fontsize=11)
    axes.set_ylabel(NAMES[found.metric], fontsize=11)
    reported = "" if found.metric.startswith("val_") else " (reported, not chosen by)"
    axes.set_title(f"{metric_name(found.metric)}{reported}\n{_wrap(found.note)}", fontsize=10)
    axes.legend(fontsize=9)
    _style(axes, "both")


def _style(axes: Axes, grid: str) -> None:
    axes.grid(axis=grid, color=palette.GRID)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _wrap(text: str) -> str:
    return "\n".join(" ".join(part) for part in np.array_split(text.split(), 1 + len(text) // 75))


def _plain(text: str) -> str:
    """Escapes what matplotlib would take for mathematics."""
    return text.replace("$", r"\$")
