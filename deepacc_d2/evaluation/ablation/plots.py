"""Figures of an ablation: differences in the metrics, and in the confusions by Denver group."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepacc_d2 import palette
from deepacc_d2.evaluation.ablation.result import AblationResult, row_of
from deepacc_d2.evaluation.ablation.tables import ERROR_NAMES, METRIC_NAMES
from deepacc_d2.evaluation.bootstrap import Estimate
from deepacc_d2.evaluation.plots import GROUP_COLORS
from deepacc_d2.evaluation.tally import ERRORS, GROUPS

_COLOR = palette.BLUE


def plot_differences(result: AblationResult) -> Figure:
    """Draws, per metric, every preset's difference to the reference with its interval.

    Faint dots are single runs, less the reference's mean; those of the reference itself show how
    much a seed alone changes. Without a reference the values themselves are drawn.
    """
    presets = list(result.presets)
    figure = Figure(figsize=(16, 2.3 + 0.55 * len(presets)), layout="constrained")
    panels = figure.subplots(1, len(METRIC_NAMES), sharey=True)
    for column, (axes, name) in enumerate(zip(panels, METRIC_NAMES.values(), strict=True)):
        base = 0.0
        if result.has_reference:
            base = float(result.presets[result.reference].metrics.mean[column])
            axes.axvline(0, color=palette.DARK, lw=1.2)
        for y, preset in enumerate(presets):
            color = palette.DARK if preset == result.reference else _COLOR
            _draw_row(axes, y, result.presets[preset].metrics, column, base=base, color=color)
        axes.grid(axis="x", color=palette.GRID)
        axes.set_axisbelow(True)
        axes.margins(x=0.12)
        better = "lower is better" if name == "AER" else "higher is better"
        axes.set_title(f"{name}\n", fontsize=13)
        axes.text(0.5, 1.02, better, transform=axes.transAxes, ha="center", color=palette.SOFT)
        unit = "percentage points" if result.has_reference else "%"
        axes.set_xlabel(f"difference, {unit}" if result.has_reference else unit, fontsize=11)
    panels[0].set_yticks(range(len(presets)), [" ".join(row_of(p)).strip() for p in presets])
    panels[0].tick_params(axis="y", labelsize=11)
    panels[0].set_ylim(len(presets) - 0.4, -0.65)
    what = (
        f"difference to {result.reference}" if result.has_reference else "values; no reference run"
    )
    figure.suptitle(f"{result.title}: {what}, {result.num_images} test images", fontsize=14)
    figure.legend(handles=_handles(result), loc="outside lower center", ncols=3, fontsize=10)
    return figure


def plot_confusions(result: AblationResult) -> Figure:
    """Draws, per kind of error, a grid of presets by Denver group.

    Cells hold the difference to the reference (blue: fewer errors, red: more; bold where the
    interval leaves out 0), the reference's own row its counts. Without a reference all are counts.
    """
    presets = list(result.presets)
    figure = Figure(figsize=(15, 3.0 + 0.86 * len(presets)), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).ravel()
    for kind, (axes, name) in enumerate(zip(panels, ERRORS[:-1], strict=True)):
        _confusion_grid(axes, result, kind)
        axes.set_title(ERROR_NAMES[name].capitalize(), fontsize=13)
        axes.set_yticks(
            range(len(presets)), [" ".join(row_of(p)).strip() for p in presets], fontsize=11
        )
    if result.has_reference:
        note = (
            f"difference to {result.reference} (its own row: counts), mean over seeds; "
            "blue: fewer, red: more; bold: 95 % interval without 0"
        )
    else:
        note = "counts, mean over seeds; no reference run"
    figure.suptitle(f"{result.title}: confusions by Denver group\n{note}", fontsize=13)
    return figure


def _draw_row(axes: Axes, y: int, found: Estimate, column: int, *, base: float, color: str) -> None:
    """One preset in one panel: interval, mean, runs, and the number above."""
    mean = float(found.mean[column])
    if np.isnan(mean):
        axes.annotate("undefined", (0.5, y), xycoords=("axes fraction", "data"), ha="center")
        return
    runs = found.values[:, column] - base
    axes.scatter(runs, np.full(len(runs), y + 0.2), s=20, color=palette.SOFT, alpha=0.4, lw=0)
    if found.low is not None and found.high is not None:
        axes.plot([found.low[column], found.high[column]], [y, y], color=color, lw=2.4)
    face = color if color == _COLOR else "white"
    axes.plot(mean - base, y, "o", color=color, mfc=face, mew=1.8, ms=7, zorder=4)
    text = f"{mean - base:+.2f}".replace("-", "−") if found.difference is not None else ""
    axes.annotate(
        text or f"{mean:.2f} %",
        (mean - base, y),
        xytext=(0, 6),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=color,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85},
    )


def _handles(result: AblationResult) -> list[Line2D]:
    """Legend entries of what is drawn."""
    handles = [
        Line2D(
            [], [], color=palette.SOFT, marker="o", ms=4.5, ls="", alpha=0.5, label="single seeds"
        )
    ]
    if not result.has_reference:
        return [Line2D([], [], color=_COLOR, marker="o", ls="", label="mean over seeds"), *handles]
    label = f"mean over seeds, 95 % interval over test cases ({result.resamples} resamples)"
    difference = Line2D([], [], color=_COLOR, marker="o", lw=2.4, label=label)
    own = Line2D(
        [], [], color=palette.DARK, marker="o", mfc="white", mew=1.8, ls="", label=result.reference
    )
    return [difference, own, *handles]


def _confusion_grid(axes: Axes, result: AblationResult, kind: int) -> None:
    """One kind of error: presets in rows; all groups, then A..G, in columns."""
    found = [statistics.errors for statistics in result.presets.values()]
    counts = np.array([estimate.mean[kind] for estimate in found])
    shown = np.full(counts.shape, np.nan)
    if result.has_reference:
        for row, estimate in enumerate(found):
            if estimate.difference is not None:
                shown[row] = estimate.difference[kind]
        cmap = "RdBu_r"
    else:
        shown, cmap = counts, "Blues"
    # The sum over the groups is larger than they are: colored on a scale of its own.
    colors = np.full(shown.shape, np.nan)
    for part in (slice(0, 1), slice(1, None)):
        known = np.abs(shown[:, part][~np.isnan(shown[:, part])])
        colors[:, part] = shown[:, part] / (known.max() if known.size and known.max() else 1)
    lowest = -1.4 if result.has_reference else 0
    axes.imshow(colors, cmap=cmap, vmin=lowest, vmax=1.4, aspect="auto")
    for row, estimate in enumerate(found):
        for column in range(len(GROUPS)):
            cell = kind, column
            text, weight, color = f"{counts[row, column]:.1f}", "normal", palette.SOFT
            if estimate.difference is not None:
                text = f"{estimate.difference[cell]:+.1f}".replace("-", "−")
                assert estimate.low is not None
                assert estimate.high is not None
                if estimate.low[cell] > 0 or estimate.high[cell] < 0:
                    weight = "bold"
                color = "black"
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=10,
                weight=weight,
                color=color,
            )
    axes.axvline(0.5, color="white", lw=5)
    axes.set_xticks(range(len(GROUPS)), GROUPS, fontsize=11)
    for label, group in zip(axes.get_xticklabels()[1:], GROUPS[1:], strict=True):
        label.set(color=GROUP_COLORS[group], fontweight="bold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
