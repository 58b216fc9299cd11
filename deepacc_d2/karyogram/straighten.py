"""Straightens a chromosome: its medial axis becomes a vertical line, bands become level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from deepacc_d2.karyogram.axis import Axis, depth_of, medial_axis, normals, read, resample
from deepacc_d2.karyogram.cut import Cut
from deepacc_d2.karyogram.doubt import doubts

# A row wider than the median by this factor shows more than the body.
_STUMP = 1.25
# A strip reaches this many half widths to the sides where a mask may hold what crosses it; at most
# so many where it does not.
_WIDE, _WIDEST = 1.35, 3.0
# Pixels beyond the mask that a strip shows; a cut's soft edge ends there.
_RIM = 4.0
# Chromatids this many half widths apart, and half again, are one body.
_SLIT = 0.4


@dataclass(frozen=True, eq=False)
class Straight:
    """A straightened chromosome, its first row at one tip.

    Attributes:
        dark: float32 (L, W), 0 background to 1 black, axis in the middle column.
        mask: bool (L, W).
        axis: complex (L,), image points that the middle column was read at.
        zoom: strip pixels for one image pixel, along and across.
        sure: the mask holds nothing of others, as one that was given does.
        doubts: why it may be wrong, of :data:`deepacc_d2.karyogram.doubt.REASONS`.
    """

    dark: NDArray[np.float32]
    mask: NDArray[np.bool_]
    axis: Axis
    zoom: float
    sure: bool = False
    doubts: tuple[str, ...] = ()


def straighten(cut: Cut, zoom: float = 1.0) -> Straight:
    """Straightens a cut; a cut without a mask of its own comes back upright as it is.

    Args:
        cut: from :func:`deepacc_d2.karyogram.cut.cut_cell`.
        zoom: strip pixels for one image pixel, above 0.
    """
    if cut.whole:
        return _as_it_is(cut, zoom)
    mask = np.pad(cut.mask, 2)
    dark = np.pad(cut.dark, 2)
    sure = cut.shared is not None
    body = _with_slits(mask)
    axis, half_width = medial_axis(body, dark, mask)
    reach = _reach(mask, axis, half_width) if sure else _WIDE * half_width
    strip = _sample(dark, mask, axis, zoom, widths=(half_width, reach))
    if strip is None:
        return _as_it_is(cut, zoom)
    level, inside, points = strip
    told = doubts(cut.doubts, resample(points, 1.0), half_width)
    return Straight(level, inside, points + complex(cut.x - 2, cut.y - 2), zoom, sure, told)


def _with_slits(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns a body with what is between its chromatids where they stand apart.

    An axis would follow one of them. What was closed is thicker, so that a wider slit may be one.
    """
    body = mask
    for _ in range(2):
        depth = depth_of(body)
        radius = int(np.ceil(_SLIT * float(np.percentile(depth[body], 90))))
        side = 2 * radius + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        padded = np.pad(mask, side).astype(np.uint8)
        body = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[side:-side, side:-side] > 0
        # The axis needs a rim around the body.
        body[[0, -1]] = body[:, [0, -1]] = False
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(body).astype(bool)
    return filled


def _reach(mask: NDArray[np.bool_], axis: Axis, half_width: float) -> float:
    """Returns how far to the sides of its axis a body is, in pixels."""
    ys, xs = np.nonzero(mask)
    away, _ = cKDTree(np.stack([axis.real, axis.imag], -1)).query(np.stack([xs, ys], -1))
    wide = float(away.max()) + 0.5
    return float(np.clip(wide, half_width, _WIDEST * half_width))


def trimmed(straight: Straight) -> NDArray[np.float32]:
    """Returns the strip's darkness without the stumps of what crosses or touches the body.

    Rows much wider than the body are shown as wide as it is, with a soft edge.
    """
    widths = straight.mask.sum(axis=1)
    if straight.sure or straight.mask.all() or not widths.any():
        return straight.dark
    usual = float(np.median(widths[widths > 0]))
    away = np.abs(np.arange(straight.mask.shape[1]) - (straight.mask.shape[1] - 1) / 2)
    stump = (widths > _STUMP * usual)[:, None] & (away > 0.5 * _STUMP * usual)[None, :]
    kept = cv2.GaussianBlur((~stump).astype(np.float32), (0, 0), max(0.6 * straight.zoom, 0.3))
    return (straight.dark * kept).astype(np.float32)


def _as_it_is(cut: Cut, zoom: float) -> Straight:
    """Scales the plain crop, turned so that its longer side stands."""
    dark, mask = cut.dark, cut.mask
    lying = dark.shape[1] > dark.shape[0]
    if lying:
        dark, mask = dark.T, mask.T
    size = (max(1, round(dark.shape[1] * zoom)), max(1, round(dark.shape[0] * zoom)))
    level: Any = cv2.resize(np.ascontiguousarray(dark), size, interpolation=cv2.INTER_LINEAR)
    along = np.linspace(0, dark.shape[0] - 1, size[1])
    middle = (dark.shape[1] - 1) / 2
    axis = along + 1j * middle if lying else middle + 1j * along
    level = level.reshape(size[1], size[0])
    whole = np.ones(level.shape, bool)
    return Straight(level, whole, axis + complex(cut.x, cut.y), zoom, doubts=cut.doubts)


def _sample(
    dark: NDArray[np.float32],
    mask: NDArray[np.bool_],
    axis: Axis,
    zoom: float,
    *,
    widths: tuple[float, float],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Axis] | None:
    """Reads the strip along the axis; None where nothing of the body is in it.

    Args:
        dark: (h, w).
        mask: (h, w).
        axis: from tip to tip.
        zoom: strip pixels for an image pixel.
        widths: half width of the body, and how far to the sides the strip reaches, in pixels.
    """
    half_width, reach = widths
    points = resample(axis, 1 / zoom)
    # What sticks out further is a neighbor's stump.
    side = int(np.ceil((reach + _RIM) * zoom))
    across = np.arange(-side, side + 1) / zoom
    grid = points[:, None] + across[None, :] * normals(points)[:, None]
    own = _own_place(mask, points, grid, max(half_width, 0.75 * reach) * zoom)
    soft = cv2.GaussianBlur(dark, (0, 0), 0.45 / zoom) if zoom < 0.8 else dark
    level = np.clip(read(soft, grid, cv2.INTER_CUBIC), 0, 1) * own
    inside = (read(mask.astype(np.float32), grid) > 0.5) & (own > 0.5)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) < 2 or not len(columns):
        return None
    # The pale edge beyond the mask belongs to the picture: a strip that ends in it looks cut off.
    rim = max(1, round(_RIM * zoom))
    top, bottom = max(rows[0] - rim, 0), min(rows[-1] + 1 + rim, len(points))
    half = min(max(side - columns[0], columns[-1] - side) + rim, side)
    part = (slice(top, bottom), slice(side - half, side + half + 1))
    return level[part].astype(np.float32), inside[part], points[top:bottom]


def _own_place(
    mask: NDArray[np.bool_], points: Axis, grid: Axis, tolerance: float
) -> NDArray[np.float32]:
    """Returns 1 where a strip pixel's nearest axis point is its own row, and 0 at ghosts.

    A normal that reaches into another arm of a hairpin would show that arm's bands twice.
    """
    height, width = mask.shape
    every = max(1, len(points) // 200)
    tree = cKDTree(np.stack([points[::every].real, points[::every].imag], -1))
    ys, xs = np.nonzero(cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)))
    nearest = np.zeros((height, width), np.float32)
    nearest[ys, xs] = tree.query(np.stack([xs, ys], -1))[1] * every
    of_pixel = read(nearest, grid, cv2.INTER_NEAREST)
    rows = np.arange(len(points), dtype=np.float32)[:, None]
    return (np.abs(of_pixel - rows) <= 1.2 * tolerance + 2).astype(np.float32)
