"""Which way up real chromosomes stand, from thousands of cells, without a person who says so.

All strips of a class are aligned to a mean of themselves: each is laid on it the way up that fits
better, and the mean is taken again. That says which strips stand alike, and leaves one sign a
class. The comparison with the ideogram decides the sign by vote: it need only be right more often
than wrong. What the network says later counts in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.karyogram.orientation.strips import LENGTH, Strips

Array = NDArray[np.float64]

_ROUNDS = 12
# Shares of the length that either end may be cut short or stand over.
_ENDS = (-0.08, -0.04, 0.0, 0.04, 0.08)
_TREND = 0.15
_WIDTH_WEIGHT = 0.6
# Strips on one side of the sign that must agree with the ideogram to call it decided.
_DECIDED = 0.55


@dataclass(frozen=True)
class Sign:
    """How the ideogram decided which way up a class is.

    Attributes:
        name: of the class.
        strips: how many were aligned.
        agree: share of them that the ideogram, one by one, turns the same way.
        decided: whether that is clear.
    """

    name: str
    strips: int
    agree: float
    decided: bool


def signatures(strips: Strips) -> Array:
    """Returns a curve (N, 2 LENGTH) for each strip: its bands, then its width, each of unit size.

    The slow trend of darkness is taken out, what stands out is cut.
    """
    body = strips.body.astype(np.float64) / 255
    across = (np.arange(body.shape[2]) + 0.5) / body.shape[2] - 0.5
    width = body.sum(axis=2)
    middle = (body * across).sum(axis=2) / np.maximum(width, 1e-6)
    core = body * (np.abs(across - middle[..., None]) <= 0.26)
    mean = (strips.dark * core).sum(axis=2) / np.maximum(core.sum(axis=2), 0.5)
    bands = _unit(mean - 0.8 * ndimage.gaussian_filter1d(mean, _TREND * LENGTH, axis=1))
    soft = ndimage.gaussian_filter1d(width, 1.5, axis=1)
    waist = _unit(np.minimum(soft, np.median(soft, axis=1, keepdims=True) * 1.2))
    return np.concatenate([bands, _WIDTH_WEIGHT * waist], axis=1)


def _unit(curves: Array) -> Array:
    curves = curves - curves.mean(axis=1, keepdims=True)
    most = 2.0 * curves.std(axis=1, keepdims=True)
    curves = np.clip(curves, -most, most)
    curves = curves - curves.mean(axis=1, keepdims=True)
    scaled: Array = curves / np.maximum(np.linalg.norm(curves, axis=1, keepdims=True), 1e-9)
    return scaled


def turned(curves: Array) -> Array:
    """Returns the signatures (N, 2 LENGTH) of the strips turned over."""
    return curves.reshape(len(curves), 2, LENGTH)[:, :, ::-1].reshape(len(curves), -1)


def _warps(mean: Array) -> Array:
    """Returns the mean (2 LENGTH,) with its ends moved, (K, 2 LENGTH)."""
    at = np.linspace(0, 1, LENGTH)
    out = []
    for top in _ENDS:
        for bottom in _ENDS:
            place = top + (1 + bottom - top) * at
            out.append(np.concatenate([np.interp(place, at, m) for m in mean.reshape(2, LENGTH)]))
    warped = np.array(out)
    return warped / np.maximum(np.linalg.norm(warped, axis=1, keepdims=True), 1e-9)


def align(curves: Array, start: Array) -> Array:
    """Aligns one class's strips with each other.

    Args:
        curves: (N, 2 LENGTH) of :func:`signatures`.
        start: (N,) what is known of each, log-odds that its p arm comes first.

    Returns:
        (N,) how much better each fits the common mean as it is than turned over: a difference of
        correlations, positive for the way up that ``start`` favors in sum.
    """
    other = turned(curves)
    weight = np.tanh(start / 2)
    gain = weight
    for _ in range(_ROUNDS):
        mean = (curves * np.maximum(weight, 0)[:, None]).sum(0)
        mean += (other * np.maximum(-weight, 0)[:, None]).sum(0)
        warps = _warps(mean)
        gain = (curves @ warps.T).max(axis=1) - (other @ warps.T).max(axis=1)
        weight = np.tanh(gain / 0.15)
    return gain


def align_classes(strips: Strips, start: Array) -> tuple[Array, list[Sign]]:
    """Aligns all classes; see :func:`align`.

    Args:
        strips: of real chromosomes, N.
        start: (N,) log-odds by the ideogram.

    Returns:
        (N,) gains, 0 for classes whose sign is not decided, and how each sign was decided.
    """
    gains = np.zeros(len(strips))
    signs = []
    for index, name in enumerate(CLASSES):
        rows = np.flatnonzero(strips.classes == index)
        if len(rows) < 2:
            continue
        gain = align(signatures(strips[rows]), start[rows])
        # The vote is of those that one can tell, each with its own weight.
        votes = np.tanh(start[rows] / 2) * np.tanh(gain / 0.15)
        agree = float((votes > 0).mean())
        if votes.sum() < 0:
            gain, agree = -gain, 1 - agree
        decided = agree >= _DECIDED
        gains[rows] = gain if decided else 0.0
        signs.append(Sign(name, len(rows), agree, decided))
    return gains, signs


def homolog_gains(strips: Strips, odds: Array) -> Array:
    """Returns how well each strip, turned as told, fits the homologs of its cell.

    Args:
        strips: N.
        odds: (N,) log-odds that the p arm comes first.

    Returns:
        (N,) mean difference of correlations with the homologs turned as told and turned over;
        0 where there is no homolog.
    """
    curves = signatures(strips)
    ahead = np.where((odds >= 0)[:, None], curves, turned(curves))
    back = turned(ahead)
    gains = np.zeros(len(strips))
    known = strips.classes >= 0
    keys = strips.cells * (len(CLASSES) + 1) + strips.classes
    order = np.argsort(keys, kind="stable")
    order = order[known[order]]
    for rows in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(rows) < 2:
            continue
        gain = ahead[rows] @ ahead[rows].T - ahead[rows] @ back[rows].T
        np.fill_diagonal(gain, 0.0)
        gains[rows] = gain.sum(axis=1) / (len(rows) - 1)
    return gains
