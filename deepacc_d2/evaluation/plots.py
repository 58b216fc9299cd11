"""Figures of a data set's metrics: confusion matrix and precision-recall."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepacc_d2 import palette
from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, GROUP_OF, NUM_CLASSES, denver_order
from deepacc_d2.evaluation.types import Metrics
from deepacc_d2.palette import GROUP_COLORS


def plot_confusion(metrics: Metrics) -> Figure:
    """Draws the confusion matrix, classes ordered by Denver group, rows in percent.

    The last column are chromosomes that were missed, the last row detections without a chromosome
    (as shares of all such detections).
    """
    order = [*denver_order(), NUM_CLASSES]
    counts = metrics.confusion[np.ix_(order, order)]
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.where(totals > 0, 100.0 * counts / np.maximum(totals, 1), np.nan)

    figure = Figure(figsize=(13, 12), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02, label="% of row (· below 1 %)")
    for row, column in np.argwhere(counts > 0):
        value = percent[row, column]
        text = f"{value:.0f}" if value >= 1 else "·"
        color = "white" if value > 55 else "#b30000" if row != column else "black"
        if NUM_CLASSES in (row, column):
            color = "white" if value > 55 else palette.DARK
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=color)

    names = [CLASSES[k] for k in order[:-1]]
    axes.set_xticks(range(NUM_CLASSES + 1), [*names, "missed"], fontsize=10)
    axes.set_yticks(range(NUM_CLASSES + 1), [*names, "spurious"], fontsize=10)
    axes.get_xticklabels()[-1].set_rotation(90)
    axes.set_xlabel("predicted class", fontsize=12)
    axes.set_ylabel("true class", fontsize=12)
    _separate_groups(axes)
    for row, total in enumerate(totals[:, 0]):
        axes.text(
            NUM_CLASSES + 0.65, row, f"n={total}", va="center", fontsize=8, color=palette.SOFT
        )
    axes.set_title(
        f"Confusion matrix, {metrics.num_images} images, {metrics.num_gt} chromosomes "
        f"(score ≥ {metrics.settings['score_threshold']:g}, "
        f"IoU ≥ {metrics.settings['iou_threshold']:g})",
        fontsize=13,
        pad=30,
    )
    return figure


def plot_precision_recall(metrics: Metrics) -> Figure:
    """Draws the interpolated precision-recall curves at IoU 0.5 and the AP of each class."""
    figure = Figure(figsize=(16, 7.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    recall = np.linspace(0.0, 1.0, 201)
    sampled = {name: _sample(curve, recall) for name, curve in metrics.curves.items()}
    for name, precision in sampled.items():
        left.plot(
            100 * recall, 100 * precision, color=GROUP_COLORS[GROUP_OF[name]], lw=0.7, alpha=0.35
        )
    handles = []
    for group, names in DENVER_GROUPS.items():
        curves = [sampled[name] for name in names if name in sampled]
        if curves:
            color = GROUP_COLORS[group]
            left.plot(100 * recall, 100 * np.mean(curves, axis=0), color=color, lw=2.4)
            label = f"{group}: {metrics.per_group[group]['map50']:.1f}"
            handles.append(Line2D([], [], color=color, lw=2.4, label=label))
    if sampled:
        mean = np.mean(list(sampled.values()), axis=0)
        left.plot(100 * recall, 100 * mean, color="black", lw=3, ls=(0, (4, 1.5)))
        handles.append(
            Line2D([], [], color="black", lw=3, ls=(0, (3, 1)), label=f"mean: {metrics.map50:.1f}")
        )
        left.legend(handles=handles, title="AP at IoU 0.5", loc="lower left", fontsize=11)
    left.set(xlim=(0, 100), ylim=(0, 101.5), xlabel="recall, %", ylabel="precision, %")
    left.set_title("Precision-recall: groups (thick), classes (thin)", fontsize=13)
    left.grid(color=palette.GRID)
    _ap_bars(right, metrics)
    return figure


def _ap_bars(axes: Axes, metrics: Metrics) -> None:
    """One bar per class: AP of the final detections, and a tick at that of top-1 boxes."""
    names = [CLASSES[k] for k in denver_order()]
    for y, name in enumerate(names):
        row = metrics.per_class[name]
        if math.isnan(row["ap50"]):
            axes.text(1, y, "no ground truth", va="center", fontsize=9, color=palette.PALE)
            continue
        axes.barh(y, row["ap50"], height=0.72, color=GROUP_COLORS[GROUP_OF[name]], alpha=0.85)
        axes.plot([row["ap50_max"]] * 2, [y - 0.42, y + 0.42], color="black", lw=1.8)
        label_at = max(row["ap50"], row["ap50_max"]) + 1
        axes.text(label_at, y, f"{row['ap50']:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 108), xlabel="AP at IoU 0.5, %")
    axes.set_title("AP by class (bar) and AP of the top class alone (tick)", fontsize=13)
    axes.grid(axis="x", color=palette.GRID)
    axes.set_axisbelow(True)


def _sample(curve: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Values of a class's step curve (G, 2) at any recalls (R,) in 0..1."""
    steps = len(curve)
    return curve[np.clip(np.ceil(recall * steps - 1e-9).astype(int) - 1, 0, steps - 1), 1]


def _separate_groups(axes: Axes) -> None:
    """Lines between groups, a frame around each group's own block, its letter on top."""
    start = 0
    for group, names in DENVER_GROUPS.items():
        stop = start + len(names)
        for line in (axes.axvline, axes.axhline):
            line(stop - 0.5, color=palette.HELD, lw=0.8)
        frame_x = [start - 0.5, stop - 0.5, stop - 0.5, start - 0.5, start - 0.5]
        frame_y = [start - 0.5, start - 0.5, stop - 0.5, stop - 0.5, start - 0.5]
        axes.plot(frame_x, frame_y, color=GROUP_COLORS[group], lw=2.2, clip_on=False)
        axes.text(
            (start + stop - 1) / 2,
            -0.75,
            group,
            ha="center",
            va="bottom",
            fontsize=13,
            fontweight="bold",
            color=GROUP_COLORS[group],
        )
        start = stop
