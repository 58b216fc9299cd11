"""Straightens a chromosome: its medial axis becomes a vertical line, bands become level.

The axis is the path between the two points of the mask that lie farthest apart within it, drawn to
where the body is thick, cut back from the tips (there it would run into a corner), smoothed until
normals of the body do not cross, moved to the middle of its cross-sections and extended to both
ends. Short, round chromosomes have no such path: their principal axis is taken. Points are complex
numbers x + iy, y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from deepacc_d2.karyogram.cut import Cut

Axis = NDArray[np.complex128]

# Path length over body width below which the principal axis is taken.
_ROUND = 2.1
# Largest product of curvature and half width: beyond 1 normals cross within the body.
_BEND = 0.85
# Pixels of a mask that paths are searched in; larger ones are shrunk for it.
_MAX_PIXELS = 3500


@dataclass(frozen=True, eq=False)
class Straight:
    """A straightened chromosome, its first row at one tip.

    Attributes:
        dark: float32 (L, W), 0 background to 1 black, axis in the middle column.
        mask: bool (L, W).
        axis: complex (L,), image points that the middle column was read at.
        zoom: strip pixels for one image pixel, along and across.
    """

    dark: NDArray[np.float32]
    mask: NDArray[np.bool_]
    axis: Axis
    zoom: float


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
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    axis, half_width = medial_axis(mask, depth)
    strip = _sample(dark, mask, axis, half_width, zoom)
    if strip is None:
        return _as_it_is(cut, zoom)
    level, inside, points = strip
    return Straight(level, inside, points + complex(cut.x - 2, cut.y - 2), zoom)


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
    return Straight(level, np.ones(level.shape, bool), axis + complex(cut.x, cut.y), zoom)


def medial_axis(mask: NDArray[np.bool_], depth: NDArray[Any]) -> tuple[Axis, float]:
    """Finds the axis of a body.

    Args:
        mask: bool (h, w), not empty, False along the border.
        depth: distance of each of its pixels to the outside.

    Returns:
        Points about one pixel apart, reaching beyond both tips, and the body's half width.
    """
    path, half_width = _longest_path(mask, depth)
    length = float(np.abs(np.diff(path)).sum()) if len(path) > 1 else 0.0
    if length < _ROUND * 2 * half_width:
        return _principal_axis(mask, half_width), half_width
    path = _resample(path, 1.0)
    cut = min(int(1.0 * half_width), int(0.3 * len(path)))
    path = path[cut : len(path) - cut]
    axis = _smooth_until_even(path, 0.5 * half_width, half_width)
    for _ in range(2):
        axis = _center(mask, axis, half_width)
        axis = _smooth_until_even(axis, 0.4 * half_width, half_width)
    return _extend(axis, half_width, 2.5 * half_width + 3), half_width


def _principal_axis(mask: NDArray[np.bool_], half_width: float) -> Axis:
    """Returns the straight line along which the body's pixels spread most."""
    ys, xs = np.nonzero(mask)
    points = xs + 1j * ys
    center = points.mean()
    offset = points - center
    spread = (offset**2).sum()  # its half angle is that of the major axis
    direction = np.exp(0.5j * np.angle(spread)) if abs(spread) > 1e-9 else 1j
    reach = np.abs((offset * np.conj(direction)).real).max() + 0.5 * half_width + 3
    count = max(int(2 * reach), 2)
    line: Axis = center + direction * np.linspace(-reach, reach, count)
    return line


def _longest_path(mask: NDArray[np.bool_], depth: NDArray[Any]) -> tuple[Axis, float]:
    """Returns the path between the two points farthest apart in the body, and its half width."""
    shrink = max(1.0, float(np.sqrt(mask.sum() / _MAX_PIXELS)))
    if shrink > 1:
        size = (max(3, round(mask.shape[1] / shrink)), max(3, round(mask.shape[0] / shrink)))
        small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
        scale_x, scale_y = mask.shape[1] / size[0], mask.shape[0] / size[1]
        if small.any():
            mask = np.pad(small, 1)
            depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) * shrink
        else:
            shrink = 1.0
    graph, cost, ys, xs = _graph(mask, depth)
    start = int(np.argmax(depth[ys, xs]))
    first = _farthest(csgraph.dijkstra(graph, indices=start))
    second = _farthest(csgraph.dijkstra(graph, indices=first))
    _, before = csgraph.dijkstra(cost, indices=first, return_predecessors=True)
    steps = [second]
    while steps[-1] != first and before[steps[-1]] >= 0:
        steps.append(int(before[steps[-1]]))
    order = np.array(steps[::-1])
    half_width = float(np.median(depth[ys[order], xs[order]]))
    x, y = xs[order].astype(float), ys[order].astype(float)
    if shrink > 1:
        x, y = (x - 0.5) * scale_x - 0.5, (y - 0.5) * scale_y - 0.5
    return x + 1j * y, max(half_width, 1.0)


def _farthest(distance: NDArray[np.float64]) -> int:
    """Returns the reachable node of the largest distance."""
    return int(np.argmax(np.where(np.isfinite(distance), distance, -1)))


def _graph(
    mask: NDArray[np.bool_], depth: NDArray[Any]
) -> tuple[sparse.csr_matrix, sparse.csr_matrix, NDArray[np.intp], NDArray[np.intp]]:
    """Returns the pixels as graphs, of lengths and of costs that fall with depth."""
    ys, xs = np.nonzero(mask)
    index = np.full(mask.shape, -1, np.int32)
    index[ys, xs] = np.arange(len(ys))
    top = float(depth.max())
    expense = 1 + 8 * (1 - depth[ys, xs] / top) ** 2
    heads, tails, lengths = [], [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        neighbour = index[ys + dy, xs + dx]  # the mask ends before the border
        kept = neighbour >= 0
        heads.append(np.flatnonzero(kept))
        tails.append(neighbour[kept])
        lengths.append(np.full(int(kept.sum()), np.hypot(dy, dx)))
    head, tail = np.concatenate(heads), np.concatenate(tails)
    length = np.concatenate(lengths)
    price = length * (expense[head] + expense[tail]) / 2
    shape = (len(ys), len(ys))
    both = (np.concatenate([head, tail]), np.concatenate([tail, head]))
    plain = sparse.csr_matrix((np.concatenate([length, length]), both), shape=shape)
    priced = sparse.csr_matrix((np.concatenate([price, price]), both), shape=shape)
    return plain, priced, ys, xs


def _resample(points: Axis, step: float) -> Axis:
    """Returns points at equal distances along a polyline."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(points)))])
    count = max(round(along[-1] / step) + 1, 2)
    at = np.linspace(0, along[-1], count)
    even: Axis = np.interp(at, along, points.real) + 1j * np.interp(at, along, points.imag)
    return even


def _blur(points: Axis, sigma: float) -> Axis:
    """Gaussian smoothing that keeps the ends and their direction."""
    reach = min(int(3 * sigma) + 1, len(points) - 1)
    if reach < 1:
        return points
    before = 2 * points[0] - points[reach:0:-1]
    after = 2 * points[-1] - points[-2 : -reach - 2 : -1]
    padded = np.concatenate([before, points, after])
    smooth = ndimage.gaussian_filter1d(padded.real, sigma) + 1j * ndimage.gaussian_filter1d(
        padded.imag, sigma
    )
    kept: Axis = smooth[reach : reach + len(points)]
    return kept


def _smooth_until_even(points: Axis, sigma: float, half_width: float) -> Axis:
    """Smooths a path until it nowhere bends more sharply than its body allows."""
    for _ in range(9):
        axis = _resample(_blur(points, sigma), 1.0)
        if len(axis) < 4:
            return axis
        turn = np.angle(np.diff(axis)[1:] * np.conj(np.diff(axis)[:-1]))
        if np.abs(ndimage.gaussian_filter1d(turn, 1.5)).max() * half_width <= _BEND:
            break
        sigma *= 1.35
    return axis


def _normals(axis: Axis) -> Axis:
    """Returns unit normals: x to the right where the axis runs down."""
    tangent = np.gradient(axis)
    tangent = tangent / np.maximum(np.abs(tangent), 1e-9)
    normal: Axis = -1j * tangent
    return normal


def _read(image: NDArray[Any], points: Axis, interpolation: int = cv2.INTER_LINEAR) -> Any:
    """Reads an image at complex points of any 2-D shape; 0 outside."""
    found: Any = cv2.remap(
        image,
        np.ascontiguousarray(points.real, np.float32),
        np.ascontiguousarray(points.imag, np.float32),
        interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return found


def _center(mask: NDArray[np.bool_], axis: Axis, half_width: float) -> Axis:
    """Moves each point to the middle of the body's cross-section through it."""
    across = np.arange(-1.7 * half_width, 1.7 * half_width + 0.25, 0.5)
    grid = axis[:, None] + across[None, :] * _normals(axis)[:, None]
    inside = _read(mask.astype(np.float32), grid) > 0.5
    middle = len(across) // 2
    # Only the run of pixels around the axis: another arm of the body may lie within reach.
    right = np.logical_and.accumulate(inside[:, middle:], axis=1)
    left = np.logical_and.accumulate(inside[:, middle::-1], axis=1)
    offset = 0.25 * (right.sum(axis=1) - left.sum(axis=1))
    # Where a neighbour was cut off or another arm is grown together, the middle is elsewhere.
    offset = np.clip(offset, -0.5 * half_width, 0.5 * half_width)
    offset = ndimage.gaussian_filter1d(offset, max(0.7 * half_width, 1.0), mode="nearest")
    moved: Axis = axis + offset * _normals(axis)
    return moved


def _extend(axis: Axis, half_width: float, reach: float) -> Axis:
    """Adds straight ends along the mean direction of the axis' outer parts."""
    back = int(np.clip(1.2 * half_width, 1, len(axis) - 1))
    steps = np.arange(1.0, reach + 1)
    head, tail = axis[0] - axis[back], axis[-1] - axis[-1 - back]
    before = axis[0] + head / max(abs(head), 1e-9) * steps[::-1]
    after = axis[-1] + tail / max(abs(tail), 1e-9) * steps
    return np.concatenate([before, axis, after])


def _sample(
    dark: NDArray[np.float32],
    mask: NDArray[np.bool_],
    axis: Axis,
    half_width: float,
    zoom: float,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Axis] | None:
    """Reads the strip along the axis; None where nothing of the body is in it."""
    points = _resample(axis, 1 / zoom)
    # What sticks out further is a neighbour's stump; the body is nowhere much thicker.
    side = int(np.ceil((1.35 * half_width + 1.5) * zoom))
    across = np.arange(-side, side + 1) / zoom
    grid = points[:, None] + across[None, :] * _normals(points)[:, None]
    own = _own_place(mask, points, grid, half_width * zoom)
    soft = cv2.GaussianBlur(dark, (0, 0), 0.45 / zoom) if zoom < 0.8 else dark
    level = np.clip(_read(soft, grid, cv2.INTER_CUBIC), 0, 1) * own
    inside = (_read(mask.astype(np.float32), grid) > 0.5) & (own > 0.5)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if len(rows) < 2 or not len(columns):
        return None
    rim = max(1, round(2 * zoom))
    top, bottom = max(rows[0] - rim, 0), min(rows[-1] + 1 + rim, len(points))
    reach = min(max(side - columns[0], columns[-1] - side) + rim, side)
    part = (slice(top, bottom), slice(side - reach, side + reach + 1))
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
    of_pixel = _read(nearest, grid, cv2.INTER_NEAREST)
    rows = np.arange(len(points), dtype=np.float32)[:, None]
    return (np.abs(of_pixel - rows) <= 1.2 * tolerance + 2).astype(np.float32)
