"""Where the chromosomes of a spread are placed.

Chromosomes are laid one after another, longest first, into a roughly round region. Each looks at
a number of random places on a coarse occupancy grid and takes the freest one; a set share is placed
across others on purpose, as in real spreads.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_CELL = 4  # px, side of a grid cell
_CANDIDATES = (2, 11)  # fewest and most places that a chromosome of a spread chooses from


def _spots(rng: np.random.Generator, count: int, clumps: np.ndarray, clumped: float) -> np.ndarray:
    """Complex (count,) random points of about the unit disc, a share of them in clumps."""
    points = rng.random(count) ** 0.6 * np.exp(2j * np.pi * rng.random(count))
    scatter = 0.22 * (rng.standard_normal(count) + 1j * rng.standard_normal(count))
    near = clumps[rng.integers(len(clumps), size=count)] + scatter
    points = np.where(rng.random(count) < clumped, near, points)
    return points / np.maximum(np.abs(points), 1)


def place(
    rng: np.random.Generator,
    axes: Sequence[np.ndarray],
    half_widths: Sequence[float],
    *,
    size: tuple[int, int],
    margins: Sequence[float],
    overlap_rate: float,
    obstacles: Sequence[tuple[complex, float]] = (),
) -> list[complex]:
    """Places N chromosomes in an image.

    Args:
        rng: of the layout.
        axes: N complex arrays, medial axes centered at 0, in pixels.
        half_widths: N half widths in pixels.
        size: image width and height.
        margins: free pixels at the left, top, right and bottom.
        overlap_rate: share of chromosomes laid across others.
        obstacles: (center, radius) of nuclei, which chromosomes mostly avoid.

    Returns:
        N complex positions of the axes' centers; every chromosome is inside the image.
    """
    w, h = size
    left, top, right, bottom = margins
    middle = complex((left + w - right) / 2, (top + h - bottom) / 2)
    reach = complex((w - left - right) / 2, (h - top - bottom) / 2)
    taken = np.zeros((h // _CELL + 2, w // _CELL + 2), np.uint8)
    for center, radius in obstacles:
        cell = (round(center.real / _CELL), round(center.imag / _CELL))
        cv2.circle(taken, cell, round(0.93 * radius / _CELL), 1, -1)

    # A blob: an ellipse whose radius wobbles, so that no two spreads share an outline.
    phase = rng.uniform(0, 2 * np.pi, 3)
    wobble = rng.normal(0, [0.10, 0.08, 0.05])

    # Some spreads are airy, others crowded into clumps.
    candidates = int(rng.integers(*_CANDIDATES))
    clumped = rng.uniform(0.0, 0.85)
    clumps = rng.uniform(0.2, 0.85, 4) * np.exp(2j * np.pi * rng.random(4))

    order = sorted(range(len(axes)), key=lambda i: -len(axes[i]))
    centers = [0j] * len(axes)
    for number in order:
        axis, half_width = axes[number], half_widths[number]
        rim = half_width + 2
        low = complex(left + rim - axis.real.min(), top + rim - axis.imag.min())
        high = complex(w - right - rim - axis.real.max(), h - bottom - rim - axis.imag.max())
        unit = _spots(rng, candidates, clumps, clumped)
        angle = np.angle(unit)
        blob = 1 + (
            wobble[:, None] * np.cos(np.arange(2, 5)[:, None] * angle + phase[:, None])
        ).sum(0)
        spots = unit * blob
        x = np.clip(middle.real + reach.real * spots.real, low.real, max(high.real, low.real))
        y = np.clip(middle.imag + reach.imag * spots.imag, low.imag, max(high.imag, low.imag))
        sparse = axis[:: max(_CELL // 2, 1)]
        columns = ((x[:, None] + sparse.real) / _CELL).astype(np.intp)
        rows = ((y[:, None] + sparse.imag) / _CELL).astype(np.intp)
        np.clip(columns, 0, taken.shape[1] - 1, out=columns)
        np.clip(rows, 0, taken.shape[0] - 1, out=rows)
        covered = (taken[rows, columns] > 0).mean(1)
        wanted = rng.uniform(0.08, 0.4) if rng.random() < overlap_rate else 0.0
        best = int(np.argmin(np.abs(covered - wanted)))
        centers[number] = complex(x[best], y[best])
        line = np.stack([axis.real + x[best], axis.imag + y[best]], -1) / _CELL
        # Two half widths from this axis to the next one is where bodies touch.
        thickness = max(round(2 * (1.9 * half_width) / _CELL), 1)
        cv2.polylines(taken, [np.round(line).astype(np.int32)], False, 1, thickness)
    return _fill(centers, axes, half_widths, size, margins)


def _fill(
    centers: list[complex],
    axes: Sequence[np.ndarray],
    half_widths: Sequence[float],
    size: tuple[int, int],
    margins: Sequence[float],
) -> list[complex]:
    """Spreads the centers linearly so that the outermost chromosomes reach the margins."""
    where = np.array(centers)
    moved = []
    for part, low, high, extent in (
        ("real", margins[0], size[0] - margins[2], size[0]),
        ("imag", margins[1], size[1] - margins[3], size[1]),
    ):
        center = getattr(where, part)
        before = np.array(
            [getattr(a, part).min() - r - 2 for a, r in zip(axes, half_widths, strict=True)]
        )
        after = np.array(
            [getattr(a, part).max() + r + 2 for a, r in zip(axes, half_widths, strict=True)]
        )
        first, last = float((center + before).min()), float((center + after).max())
        factor = np.clip((high - low) / max(last - first, 1.0), 1.0, 1.35)
        center = low + (center - first) * factor
        center = center + max((high - low - factor * (last - first)) / 2, 0.0)
        moved.append(np.clip(center, -before, np.maximum(extent - 1 - after, -before)))
    return [complex(x, y) for x, y in zip(*moved, strict=True)]
