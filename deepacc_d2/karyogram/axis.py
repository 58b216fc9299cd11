"""The medial axis of a chromosome's body, by shortest paths within it.

The axis is the path between the two points that are farthest apart within the body, drawn to where
it is thick, cut back from the tips (there it would run into a corner), smoothed until normals of
the body do not cross, moved to the middle of its cross-sections and extended to both ends. Short
chromosomes have no such path: they are mirrored at their axis (``symmetry.py``). Points are complex
numbers x + iy, y down.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from deepacc_d2.karyogram.symmetry import mirror_axis, mirror_score

Axis = NDArray[np.complex128]
Mask = NDArray[np.bool_]

# A body is short whose longest path, squared, is less than this many times its area: about its
# length over its width.
_SHORT = 3.8
# A mirror line of this score is believed without a look at paths.
_CLEAR = 0.75
# A short body so many times as long as wide may be bent.
_BENT = 1.6
# Largest product of curvature and half width: beyond 1 normals cross within the body.
_BEND = 0.85
# Pixels of a mask that paths are searched in; larger ones are shrunk for it.
_MAX_PIXELS = 2500
# From a pixel to its neighbors (dy, dx), and how long these steps are.
_STEPS = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx])
_LENGTHS = np.hypot(*_STEPS.T)
# Price of a pixel that is not the body's own, such as one of a crossing neighbor.
_FOREIGN = 4.0


def medial_axis(mask: Mask, dark: NDArray[np.float32], own: Mask) -> tuple[Axis, float]:
    """Finds the axis of a body.

    Args:
        mask: bool (h, w), not empty, False along the border: the body with its slits closed.
        dark: (h, w) its darkness.
        own: the same with nothing closed, which tells a bend from a slit.

    Returns:
        Points about one pixel apart, reaching beyond both tips, and the body's half width.
    """
    path, half_width = longest_path(mask, depth_of(mask))
    length = float(np.abs(np.diff(path)).sum()) + 1
    if length**2 < _SHORT * mask.sum():
        return _short_axis(mask, dark, own)
    return _along(mask, path, half_width)


def depth_of(mask: Mask) -> NDArray[Any]:
    """Returns the distance of each pixel of a body to the outside."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)


def _along(mask: Mask, path: Axis, half_width: float) -> tuple[Axis, float]:
    """Makes the axis of the longest path through a body."""
    path = resample(path, 1.0)
    cut = min(int(1.0 * half_width), int(0.3 * len(path)))
    path = path[cut : len(path) - cut]
    axis = _smooth_until_even(path, 0.5 * half_width, half_width)
    for _ in range(2):
        axis = _center(mask, axis, half_width)
        axis = _smooth_until_even(axis, 0.4 * half_width, half_width)
    return _extend(axis, half_width, 2.5 * half_width + 3), half_width


def _short_axis(mask: Mask, dark: NDArray[np.float32], own: Mask) -> tuple[Axis, float]:
    """Returns the axis of a short body and its half width; see :func:`medial_axis`."""
    found = mirror_axis(mask, dark)
    axis, half_width = found.points(), max(found.half_width, 1.0)
    if found.reach > _BENT * half_width:
        axis = _center(mask, axis, half_width)
        axis = _smooth_until_even(axis, 0.5 * half_width, half_width)
    if found.score < _CLEAR:
        # A horseshoe's own mirror line runs across it: what of it is alike along a path?
        path, thin = longest_path(own, depth_of(own))
        bent, thin = _along(own, path, thin)
        across = np.linspace(-1.3, 1.3, 21) * thin
        grid = bent[:, None] + across[None, :] * normals(bent)[:, None]
        picture = np.stack([dark * own, own], axis=2).astype(np.float32)
        if mirror_score(read(picture, grid), len(bent) - 5 * thin - 6, 2 * thin) > found.score:
            return bent, thin
    return axis, half_width


def longest_path(mask: Mask, depth: NDArray[Any], own: Mask | None = None) -> tuple[Axis, float]:
    """Finds the path between the two points farthest apart in a body.

    Args:
        mask: bool (h, w), not empty, False along the border: where the path may go.
        depth: distance of each of its pixels to the outside.
        own: bool (h, w), pixels that are surely the body's: the path ends in them, and goes
            through others at a price. None: all are.

    Returns:
        The path's points about one pixel apart, and the body's median half width along it.
    """
    shrink = max(1.0, float(np.sqrt(mask.sum() / _MAX_PIXELS)))
    scale_x = scale_y = 1.0
    if shrink > 1:
        size = (max(3, round(mask.shape[1] / shrink)), max(3, round(mask.shape[0] / shrink)))
        small = np.pad(_shrunk(mask, size), 1)
        if small.any():
            scale_x, scale_y = mask.shape[1] / size[0], mask.shape[0] / size[1]
            depth = depth_of(small) * shrink
            own = None if own is None else np.pad(_shrunk(own, size), 1) & small
            mask = small
        else:
            shrink = 1.0
    ys, xs = np.nonzero(mask)
    foreign = np.zeros(len(ys), bool)
    if own is not None and own.any():
        foreign = ~own[ys, xs]
    graph, cost = _graphs(mask, depth, foreign)
    start = int(np.argmax(np.where(foreign, -1, depth[ys, xs])))
    first = _farthest(csgraph.dijkstra(graph, indices=start), foreign)
    second = _farthest(csgraph.dijkstra(graph, indices=first), foreign)
    _, before = csgraph.dijkstra(cost, indices=first, return_predecessors=True)
    steps = [second]
    while steps[-1] != first and before[steps[-1]] >= 0:
        steps.append(int(before[steps[-1]]))
    order = np.array(steps[::-1])
    kept = order[~foreign[order]]
    half_width = float(np.median(depth[ys[kept], xs[kept]]))
    x, y = xs[order].astype(float), ys[order].astype(float)
    if shrink > 1:
        x, y = (x - 0.5) * scale_x - 0.5, (y - 0.5) * scale_y - 0.5
    return x + 1j * y, max(half_width, 1.0)


def _shrunk(mask: Mask, size: tuple[int, int]) -> Mask:
    """Returns a mask of another width and height."""
    small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    found: Mask = small > 0.5
    return found


def _farthest(distance: NDArray[np.float64], foreign: Mask) -> int:
    """Returns the reachable node of the largest distance among the body's own."""
    return int(np.argmax(np.where(np.isfinite(distance) & ~foreign, distance, -1)))


def _graphs(
    mask: Mask, depth: NDArray[Any], foreign: Mask
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Returns the pixels as graphs, of lengths and of costs that fall with depth.

    Lengths are of all pixels alike; a foreign one costs more.
    """
    ys, xs = np.nonzero(mask)
    index = np.full(mask.shape, -1, np.int32)
    index[ys, xs] = np.arange(len(ys))
    expense = 1 + 8 * (1 - depth[ys, xs] / float(depth.max())) ** 2
    expense = expense * np.where(foreign, _FOREIGN, 1.0)
    # Row by row, so that the neighbors of a pixel are in the order of their numbers.
    tails = index[ys[:, None] + _STEPS[:, 0], xs[:, None] + _STEPS[:, 1]]
    kept = tails >= 0  # the mask ends before the border
    tail = tails[kept]
    first = np.zeros(len(ys) + 1, np.int32)
    np.cumsum(kept.sum(axis=1), out=first[1:])
    length = np.broadcast_to(_LENGTHS, kept.shape)[kept]
    price = length * (np.repeat(expense, np.diff(first)) + expense[tail]) / 2
    shape = (len(ys), len(ys))
    plain = sparse.csr_matrix((length, tail, first), shape=shape)
    priced = sparse.csr_matrix((price, tail, first), shape=shape)
    return plain, priced


def resample(points: Axis, step: float) -> Axis:
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
        axis = resample(_blur(points, sigma), 1.0)
        if len(axis) < 4:
            return axis
        turn = np.angle(np.diff(axis)[1:] * np.conj(np.diff(axis)[:-1]))
        if np.abs(ndimage.gaussian_filter1d(turn, 1.5)).max() * half_width <= _BEND:
            break
        sigma *= 1.35
    return axis


def _center(mask: Mask, axis: Axis, half_width: float) -> Axis:
    """Moves each point to the middle of the body's cross-section through it."""
    across = np.arange(-1.7 * half_width, 1.7 * half_width + 0.25, 0.5)
    grid = axis[:, None] + across[None, :] * normals(axis)[:, None]
    inside = read(mask.astype(np.float32), grid) > 0.5
    middle = len(across) // 2
    # Only the run of pixels around the axis: another arm of the body may be within reach.
    right = np.logical_and.accumulate(inside[:, middle:], axis=1)
    left = np.logical_and.accumulate(inside[:, middle::-1], axis=1)
    offset = 0.25 * (right.sum(axis=1) - left.sum(axis=1))
    # Where a neighbor was cut off or another arm is grown together, the middle is elsewhere.
    offset = np.clip(offset, -0.5 * half_width, 0.5 * half_width)
    offset = ndimage.gaussian_filter1d(offset, max(0.7 * half_width, 1.0), mode="nearest")
    moved: Axis = axis + offset * normals(axis)
    return moved


def _extend(axis: Axis, half_width: float, reach: float) -> Axis:
    """Adds straight ends along the mean direction of the axis' outer parts."""
    back = int(np.clip(1.2 * half_width, 1, len(axis) - 1))
    steps = np.arange(1.0, reach + 1)
    head, tail = axis[0] - axis[back], axis[-1] - axis[-1 - back]
    before = axis[0] + head / max(abs(head), 1e-9) * steps[::-1]
    after = axis[-1] + tail / max(abs(tail), 1e-9) * steps
    return np.concatenate([before, axis, after])


def normals(axis: Axis) -> Axis:
    """Returns unit normals: x to the right where the axis runs down."""
    tangent = np.gradient(axis)
    tangent = tangent / np.maximum(np.abs(tangent), 1e-9)
    normal: Axis = -1j * tangent
    return normal


def read(image: NDArray[Any], points: Axis, interpolation: int = cv2.INTER_LINEAR) -> Any:
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
