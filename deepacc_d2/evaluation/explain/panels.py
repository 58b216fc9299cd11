"""The two panels of :mod:`deepacc_d2.evaluation.explain.plot`: metaphase and plane of features."""

from __future__ import annotations

from typing import Any, SupportsIndex

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from deepacc_d2 import palette
from deepacc_d2.chromosomes import CLASSES, GROUP_OF
from deepacc_d2.evaluation.explain.explanation import (
    ALL_WRONG,
    BROKEN,
    RESCUED,
    UNKNOWN,
    Explanation,
    class_name,
)
from deepacc_d2.evaluation.label_layout import to_points, write_labels
from deepacc_d2.evaluation.plots import GROUP_COLORS

OUTCOME_COLORS: dict[str, str] = {
    RESCUED: palette.RESCUED,
    BROKEN: palette.SPURIOUS,
    ALL_WRONG: palette.WRONG,
    UNKNOWN: palette.MISSED,
}
AGREE, AGREE_WRONG, MISSED = palette.MUTED, palette.WRONG, palette.MISSED


def zoom_on(explanation: Explanation, image: np.ndarray) -> tuple[float, float, float, float]:
    """Returns left, right, top, bottom of the part that has boxes, with a margin in pixels."""
    height, width = image.shape
    boxes = [explanation.boxes]
    if explanation.gt_boxes is not None:
        boxes.append(explanation.gt_boxes)
    corners = np.concatenate(boxes)
    if not len(corners):
        return 0.0, float(width), 0.0, float(height)
    margin = 0.03 * max(height, width)
    low = np.maximum(corners[:, :2].min(axis=0) - margin, 0.0)
    high = np.minimum(corners[:, 2:].max(axis=0) + margin, [width, height])
    return low[0], high[0], low[1], high[1]


def draw_metaphase(
    axes: Axes, explanation: Explanation, image: np.ndarray, zoom: tuple[float, ...]
) -> None:
    """Draws the image with rows, missed chromosomes, local centers and their partners.

    Args:
        axes: of these limits' shape.
        explanation: of the image.
        image: gray uint8 (H, W).
        zoom: left, right, top, bottom in pixels.
    """
    # Blacks become gray, so that lines and letters stand out on chromosomes.
    axes.imshow(image, cmap="gray", vmin=-110, vmax=255)
    axes.set(xlim=zoom[:2], ylim=(zoom[3], zoom[2]), xticks=[], yticks=[])
    axes.apply_aspect()
    styles = [_row_style(explanation, i) for i in range(len(explanation))]
    texts = _row_texts(explanation)
    boxes = list(explanation.boxes)
    if explanation.missed is not None:
        assert explanation.gt_boxes is not None
        assert explanation.gt_classes is not None
        for j in np.flatnonzero(explanation.missed):
            boxes.append(explanation.gt_boxes[j])
            styles.append({"color": MISSED, "lw": 1.3, "ls": (0, (4, 2)), "size": 8.0})
            texts.append(CLASSES[explanation.gt_classes[j]])
    centers = explanation.centers
    if centers is not None:
        for k in np.flatnonzero(centers.local & (centers.rows < 0)):
            boxes.append(centers.boxes[k])
            styles.append({"color": _group_color(k), "lw": 1.2, "ls": ":", "size": 7.5})
            texts.append("")
    for (x0, y0, x1, y1), style in zip(boxes, styles, strict=True):
        axes.add_patch(
            Rectangle(
                *((x0, y0), x1 - x0, y1 - y0),
                facecolor="none",
                edgecolor=style["color"],
                linewidth=style["lw"],
                linestyle=style.get("ls", "-"),
                zorder=3 if style.get("bold") else 2,
            )
        )
    stars, star_texts = _draw_stars(axes, explanation)
    _draw_partners(axes, explanation)
    anchors = to_points(axes, np.concatenate([np.reshape(boxes, (-1, 4)), stars]))
    styles += [{"color": _group_color(k), "lw": 0, "size": 7.5} for k, _ in star_texts]
    write_labels(axes, [*texts, *(t for _, t in star_texts)], styles, anchors, obstacles=anchors)


def _row_style(explanation: Explanation, row: int) -> dict[str, Any]:
    if explanation.differs[row]:
        color = OUTCOME_COLORS[explanation.outcome(row)]
        style = {"color": color, "lw": 2.4, "size": 10.5, "bold": True}
        return style if explanation.detected[row] else {**style, "ls": (0, (1, 1))}
    truth = explanation.true_classes
    if truth is not None and truth[row] != explanation.classes[row]:
        return {"color": AGREE_WRONG, "lw": 1.1, "size": 8.5}
    return {"color": AGREE, "lw": 0.7, "size": 8.0}


def _row_texts(explanation: Explanation) -> list[str]:
    texts, number = [], 0
    for i in range(len(explanation)):
        truth = explanation.true_classes
        if explanation.differs[i]:
            number += 1
            texts.append(f"({number}) {'→'.join(explanation.path(i))}")
        elif truth is not None and truth[i] != explanation.classes[i]:
            texts.append(f"{CLASSES[explanation.classes[i]]} / {class_name(truth[i])}")
        else:
            texts.append(CLASSES[explanation.classes[i]])
    return texts


def _draw_stars(axes: Axes, explanation: Explanation) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Marks the local centers' boxes; returns the stars' places (n, 4), classes and labels.

    A star is labelled where it does not simply sit on a chromosome with its own class's name.
    """
    centers = explanation.centers
    if centers is None:
        return np.zeros((0, 4)), []
    local = np.flatnonzero(centers.local)
    middles = (centers.boxes[local, :2] + centers.boxes[local, 2:]) / 2
    _scatter_stars(axes, explanation, middles, edge="white")
    texts = []
    for k in local:
        row = centers.rows[k]
        own = row >= 0 and not explanation.differs[row] and explanation.classes[row] == k
        texts.append((int(k), "" if own else f"{CLASSES[k]}★"))
    return np.concatenate([middles, middles], axis=1), texts


def _draw_partners(axes: Axes, explanation: Explanation) -> None:
    """Draws a line from each star to a diamond on the partner, wrong ones with a red edge."""
    centers = explanation.centers
    if centers is None or not centers.paired.any():
        return
    paired = np.flatnonzero(centers.paired)
    colors = [_group_color(k) for k in paired]
    ends = [
        (boxes[paired, :2] + boxes[paired, 2:]) / 2
        for boxes in (centers.boxes, centers.partner_boxes)
    ]
    lines = list(np.stack(ends, axis=1))
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=0.6, alpha=0.5, zorder=4))
    wrong = centers.wrong_partner[paired]
    axes.scatter(
        ends[1][:, 0],
        ends[1][:, 1],
        s=30,
        marker="D",
        c=colors,
        edgecolors=[OUTCOME_COLORS[BROKEN] if w else "white" for w in wrong],
        linewidths=[1.6 if w else 0.7 for w in wrong],
        zorder=5,
    )


def _scatter_stars(axes: Axes, explanation: Explanation, places: np.ndarray, *, edge: str) -> None:
    """Draws a star at the place (n, 2) of each class that has a local center, wrong ones in red."""
    assert explanation.centers is not None
    local = np.flatnonzero(explanation.centers.local)
    wrong = explanation.centers.wrong[local]
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=120,
        marker="*",
        c=[_group_color(k) for k in local],
        edgecolors=[OUTCOME_COLORS[BROKEN] if w else edge for w in wrong],
        linewidths=[1.6 if w else 0.7 for w in wrong],
        zorder=5,
    )


def draw_plane(axes: Axes, explanation: Explanation) -> None:
    """Draws features, global and local centers in the plane, as Fig. 3 of Luo et al. 2020 does."""
    points, centers = explanation.points, explanation.centers
    globals_ = explanation.global_points
    colors = [_group_color(k) for k in range(len(globals_))]
    axes.scatter(
        globals_[:, 0], globals_[:, 1], s=34, marker="x", c=colors, linewidths=1.4, zorder=2
    )
    local = np.zeros(len(globals_), dtype=bool)
    if centers is not None:
        local = centers.local
        lines = np.stack([globals_, centers.points], axis=1)[local]
        own = [colors[k] for k in np.flatnonzero(local)]
        axes.add_collection(LineCollection(list(lines), colors=own, linewidths=0.7, alpha=0.55))
        _scatter_stars(axes, explanation, centers.points[local], edge="black")
    texts, styles = [], []
    edges = [_row_style(explanation, i)["color"] for i in range(len(points))]
    for i, k in enumerate(explanation.classes):
        texts.append(CLASSES[k] if explanation.detected[i] else "none")
        bold = bool(explanation.differs[i])
        styles.append({"color": _group_color(k), "size": 8.5, "bold": bold})
    odd = np.array([color != AGREE for color in edges], dtype=bool)
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=30,
        c=[_group_color(k) for k in explanation.classes],
        edgecolors=[color if o else "white" for color, o in zip(edges, odd, strict=True)],
        linewidths=[1.6 if o else 0.5 for o in odd],
        zorder=4,
    )
    # A cross whose class has a local center is named by the line that leads there.
    texts += [CLASSES[k] for k in np.flatnonzero(~local)]
    styles += [{"color": colors[k], "size": 7.5, "italic": True} for k in np.flatnonzero(~local)]
    stars = np.zeros((0, 2))
    if centers is not None:
        # Nor does a star on a labelled point of its class need a name of its own.
        lone = [k for k in np.flatnonzero(local) if not _near_own(explanation, k)]
        texts += [f"{CLASSES[k]}★" for k in lone]
        styles += [{"color": colors[k], "size": 7.5} for k in lone]
        stars = centers.points[lone]
    axes.margins(0.07)
    share = 100 * explanation.variance
    axes.set_xlabel(f"first principal component, {share[0]:.0f} % of variance", fontsize=9)
    axes.set_ylabel(f"second, {share[1]:.0f} %", fontsize=9)
    axes.tick_params(labelsize=8, colors=palette.PALE)
    axes.set_title("Classification features and class centers", fontsize=11, loc="left")
    axes.grid(color=palette.FAINT)
    axes.set_axisbelow(True)
    axes.autoscale_view()
    dots = np.concatenate([points, globals_[~local], stars])
    radius = 3.0
    at = to_points(axes, np.concatenate([dots, dots], axis=1))
    at = at + np.array([-radius, -radius, radius, radius])
    crosses = to_points(axes, np.concatenate([globals_, globals_], axis=1))
    crosses = crosses + np.array([-2.0, -2.0, 2.0, 2.0])
    obstacles = np.concatenate([at, crosses])
    write_labels(
        axes, texts, styles, at, obstacles=obstacles, distances=(0.5, 5.0, 11.0, 18.0, 27.0, 38.0)
    )


def _near_own(explanation: Explanation, index: SupportsIndex) -> bool:
    """Whether a class's local center lies, on the plane's scale, on a row of that class."""
    assert explanation.centers is not None
    everything = np.concatenate([explanation.points, explanation.global_points])
    offsets = explanation.points[explanation.classes == index] - explanation.centers.points[index]
    return bool((np.abs(offsets) < 0.008 * np.ptp(everything, axis=0)).all(axis=1).any())


def _group_color(index: SupportsIndex) -> str:
    return GROUP_COLORS[GROUP_OF[CLASSES[index]]]
