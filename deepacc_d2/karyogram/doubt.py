"""Why a chromosome's picture in the karyogram may be wrong: reasons to look at the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.karyogram.axis import Axis

REASONS = {
    "not_cut": "not told from the background: the plain crop is shown",
    "crossing": "another chromosome covers a part of it, which is reconstructed",
    "bent": "bent by more than a right angle",
    "ring": "closed to a ring",
    "in_parts": "cut into several parts",
    "at_border": "reaches the image's border",
}
"""By the names that records use."""

# Less of a mask than this in common with others' is touching, not crossing.
_CROSSING = 0.04
# A hole of this share of the mask and its hole makes a ring; a smaller one is a pale band.
_HOLE = 0.04
# Another part of less than this share of a mask is a speck.
_SPECK = 0.03
# Pixels at the image's border that are more than a corner.
_BORDER = 3
# The axis' turns are told after smoothing over this many body widths.
_SMOOTH = 0.5


def doubts_of_mask(
    mask: NDArray[np.bool_], shared: NDArray[np.bool_] | None, border: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Returns the reasons that a mask gives, in the order of :data:`REASONS`.

    Args:
        mask: bool (h, w), not empty, holes not filled.
        shared: bool (h, w), its pixels that others' masks have as well; None if not known.
        border: bool (h, w), pixels at the image's border.
    """
    area = int(mask.sum())
    found = []
    if shared is not None and shared.sum() > _CROSSING * area:
        found.append("crossing")
    filled = ndimage.binary_fill_holes(mask)
    holes, _ = ndimage.label(filled & ~mask)
    largest = np.bincount(holes.ravel())[1:].max(initial=0)
    if largest > _HOLE * filled.sum():
        found.append("ring")
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    if (np.bincount(parts.ravel())[1:] > _SPECK * area).sum() > 1:
        found.append("in_parts")
    if (mask & border).sum() >= _BORDER:
        found.append("at_border")
    return tuple(found)


def bend_of(axis: Axis, half_width: float) -> float:
    """Returns how far an axis turns, in radians: between those two of its places that differ most.

    Args:
        axis: complex points about a pixel apart, from tip to tip.
        half_width: of the body, in the same pixels.
    """
    if len(axis) < 4:
        return 0.0
    steps = np.diff(axis)
    steps = steps[np.abs(steps) > 1e-9]
    if len(steps) < 3:
        return 0.0
    turns = np.angle(steps[1:] * np.conj(steps[:-1]))
    heading = np.concatenate([[0.0], np.cumsum(turns)])
    smooth = ndimage.gaussian_filter1d(heading, max(2 * _SMOOTH * half_width, 1.0), mode="nearest")
    return float(np.ptp(smooth))


def doubts(of_mask: tuple[str, ...], axis: Axis, half_width: float) -> tuple[str, ...]:
    """Returns all reasons of a straightened chromosome, in the order of :data:`REASONS`.

    Args:
        of_mask: those of its mask.
        axis: see :func:`bend_of`.
        half_width: see there.
    """
    found = set(of_mask)
    bend = bend_of(axis, half_width)
    if bend > np.pi / 2:
        found.add("bent")
    # Tips that meet after nearly a full turn.
    length = float(np.abs(np.diff(axis)).sum()) if len(axis) > 1 else 0.0
    if bend > 1.4 * np.pi and abs(axis[-1] - axis[0]) < 0.25 * length:
        found.add("ring")
    return tuple(name for name in REASONS if name in found)
