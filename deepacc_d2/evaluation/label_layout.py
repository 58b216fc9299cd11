"""Places for many small labels next to the things that they name, so that few hide each other.

Rectangles are XYXY with y upward, in any one unit (points, 1/72 inch, in our figures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path

_HIDES_LABEL = 8.0
_HIDES_OBSTACLE = 1.0
_OUTSIDE = 30.0
_HALO = [withStroke(linewidth=2.2, foreground="white", alpha=0.9)]


def place_labels(
    sizes: np.ndarray,
    anchors: np.ndarray,
    obstacles: np.ndarray,
    bounds: np.ndarray,
    *,
    distances: tuple[float, ...] = (1.0,),
) -> np.ndarray:
    """Places labels one after the other, each where it hides least and is nearest.

    Args:
        sizes: (n, 2) width and height of each label; earlier ones choose first.
        anchors: (n, 4) what each label names.
        obstacles: (m, 4) what labels should not cover.
        bounds: (4,) where labels should stay.
        distances: gaps between label and anchor to try.

    Returns:
        (n, 2) lower left corner of each label.
    """
    placed = np.zeros((0, 4))
    corners = np.zeros((len(sizes), 2))
    for i, (size, anchor) in enumerate(zip(sizes, anchors, strict=True)):
        choices, detour = _candidates(size, anchor, distances)
        boxes = np.concatenate([choices, choices + size], axis=1)
        inside = _overlaps(boxes, bounds[None])[:, 0]
        cost = (
            _HIDES_LABEL * _overlaps(boxes, placed).sum(axis=1)
            + _HIDES_OBSTACLE * _overlaps(boxes, obstacles).sum(axis=1)
            + _OUTSIDE * (size.prod() - inside)
            + detour * size.prod() * 0.02
        )
        corners[i] = choices[cost.argmin()]
        placed = np.concatenate([placed, [[*corners[i], *(corners[i] + size)]]])
    return corners


def _candidates(
    size: np.ndarray, anchor: np.ndarray, distances: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns lower left corners around the anchor, the best-liked first, and their detours."""
    (x0, y0, x1, y1), (w, h) = anchor, size
    middle_x, middle_y = (x0 + x1 - w) / 2, (y0 + y1 - h) / 2
    found, detour = [], []
    for gap in distances:
        diagonal = 0.7 * gap
        found += [
            (x0, y1 + gap),
            (x1 - w, y1 + gap),
            (x0, y0 - gap - h),
            (x1 - w, y0 - gap - h),
            (middle_x, y1 + gap),
            (middle_x, y0 - gap - h),
            (x1 + gap, middle_y),
            (x0 - gap - w, middle_y),
            (x1 + diagonal, y1 + diagonal),
            (x0 - diagonal - w, y1 + diagonal),
            (x1 + diagonal, y0 - diagonal - h),
            (x0 - diagonal - w, y0 - diagonal - h),
        ]
        detour += [gap] * 12
    return np.array(found), np.array(detour)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the common areas (n, m) of rectangles (n, 4) and (m, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    area: np.ndarray = np.clip(high - low, 0.0, None).prod(axis=2)
    return area


def write_labels(
    axes: Axes,
    texts: Sequence[str],
    styles: Sequence[dict[str, Any]],
    anchors: np.ndarray,
    *,
    obstacles: np.ndarray,
    distances: tuple[float, ...] = (1.0,),
) -> None:
    """Writes labels next to their anchors, the bold ones choosing their places first.

    Args:
        axes: with its final limits and place in the figure.
        texts: an empty one is left out.
        styles: of each label: ``color``, ``size`` and, if wished, ``bold`` or ``italic``.
        anchors: (n, 4) in points, see :func:`to_points`.
        obstacles: (m, 4) in points.
        distances: see :func:`place_labels`.
    """
    order = [i for i in range(len(texts)) if texts[i]]
    order.sort(key=lambda i: not styles[i].get("bold"))
    sizes = [_text_size(texts[i], styles[i]["size"], bool(styles[i].get("bold"))) for i in order]
    bounds = to_points(axes, np.array([[*axes.get_xlim(), *axes.get_ylim()]])[:, [0, 2, 1, 3]])[0]
    corners = place_labels(
        np.reshape(sizes, (-1, 2)), anchors[order], obstacles, bounds, distances=distances
    )
    origin = bounds[:2]
    for i, corner, size in zip(order, corners, sizes, strict=True):
        style = styles[i]
        _leader(axes, anchors[i], corner, size, style["color"])
        axes.annotate(
            *(texts[i], (0, 0)),
            xycoords="axes fraction",
            xytext=tuple(corner - origin),
            textcoords="offset points",
            fontsize=style["size"],
            fontweight="bold" if style.get("bold") else "normal",
            fontstyle="italic" if style.get("italic") else "normal",
            color=_text_color(style["color"]),
            path_effects=_HALO,
            va="bottom",
            zorder=7 if style.get("bold") else 6,
            annotation_clip=False,
        )


def _leader(
    axes: Axes, anchor: np.ndarray, corner: np.ndarray, size: Sequence[float], color: str
) -> None:
    """Draws a thin line from a point to its label where that is far off."""
    to_data = axes.transData.inverted().transform
    scale = axes.figure.dpi / 72
    center = np.array([anchor[:2] + anchor[2:]]) / 2
    near = np.clip(center, corner, corner + np.asarray(size))
    if np.linalg.norm(near - center) > 7 and (anchor[2:] - anchor[:2]).max() < 8:
        start, stop = to_data(center * scale)[0], to_data(near * scale)[0]
        axes.plot(*zip(start, stop, strict=True), color=color, lw=0.5, alpha=0.8, zorder=3)


def _text_size(text: str, size: float, bold: bool) -> tuple[float, float]:
    """Returns width and height in points, without a renderer."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return width + 1.0, 1.1 * size


def to_points(axes: Axes, boxes: np.ndarray) -> np.ndarray:
    """Turns XYXY in data coordinates into XYXY in points, y upward."""
    corners = axes.transData.transform(np.reshape(boxes, (-1, 2))).reshape(-1, 4)
    corners *= 72 / axes.figure.dpi
    low = np.minimum(corners[:, :2], corners[:, 2:])
    high = np.maximum(corners[:, :2], corners[:, 2:])
    return np.concatenate([low, high], axis=1)


def _text_color(color: str) -> tuple[float, ...]:
    """Darkens a color: thin strokes look paler than lines and dots."""
    return tuple(0.7 * value for value in to_rgb(color))
