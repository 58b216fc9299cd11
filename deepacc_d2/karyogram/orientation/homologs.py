"""What the copies of a chromosome in one cell say about each other's way up.

Each strip has log-odds of its own that its p arm comes first, and each two copies have log-odds
that they stand alike, by how much better their bands and widths fit so than with one turned over.
What they say together is the sum over all ways up, weighted by both.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyogram.orientation.labels import signatures, turned
from deepacc_d2.karyogram.orientation.strips import Strips

Array = NDArray[np.float64]

# Log-odds that two copies stand alike, for a difference of correlations. Fitted on real training
# images, on pairs that the network is sure of one by one.
_ALIKE = 6.0
# No pair is as sure as that: one of the two may be of another class, or cut short.
_MOST_ALIKE = 3.0
# More copies of a class than this are not weighed together: it would take long, and is no cell.
_MOST = 6


def alike(strips: Strips) -> Array:
    """Returns log-odds (N, N) that strips of one class stand the same way up."""
    curves = signatures(strips)
    gain = curves @ curves.T - curves @ turned(curves).T
    odds: Array = np.clip(_ALIKE * gain, -_MOST_ALIKE, _MOST_ALIKE)
    np.fill_diagonal(odds, 0.0)
    return odds


def weigh_together(strips: Strips, odds: Array) -> Array:
    """Returns log-odds (N,) that p arms come first, in view of the copies of the same cell.

    Args:
        strips: N; those without a class are left as they are.
        odds: (N,) of each by itself.
    """
    joint = odds.copy()
    keys = strips.cells * (NUM_CLASSES + 1) + strips.classes
    for key in np.unique(keys[strips.classes >= 0]):
        rows = np.flatnonzero((keys == key) & (strips.classes >= 0))
        if 2 <= len(rows) <= _MOST:
            joint[rows] = _posterior(odds[rows], alike(strips[rows]))
    return joint


def _posterior(odds: Array, pairs: Array) -> Array:
    """Returns log-odds (n,) of each, summed over the 2^n ways up of all.

    Args:
        odds: (n,) of each by itself.
        pairs: (n, n) that two stand alike, symmetric, zero diagonal.
    """
    ways = np.array(list(itertools.product((-1.0, 1.0), repeat=len(odds))))
    weight = 0.5 * ways @ odds + 0.25 * np.einsum("ki,ij,kj->k", ways, pairs, ways)
    up = np.array([np.logaddexp.reduce(weight[ways[:, n] > 0]) for n in range(len(odds))])
    down = np.array([np.logaddexp.reduce(weight[ways[:, n] < 0]) for n in range(len(odds))])
    posterior: Array = up - down
    return posterior
