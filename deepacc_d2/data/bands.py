"""Which way up a chromosome of a known class lies, by its bands and its width.

Both ways up, the profile of darkness along it, from tip to tip, is compared with the ideogram's
bands of its class, blurred to what a metaphase shows, over small stretches of either arm; and its
width with the constriction that a centromere makes at its place.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.data.synthetic.chromosome import PALE_GVAR, STAIN_LEVEL
from deepacc_d2.ideogram import load_ideograms

Profile = NDArray[np.float64]

POINTS = 128
"""Samples of a profile, from tip to tip."""

# Standard deviation of the blur of bands, in lengths of chromosome 1.
_BLUR = 0.011
# Shifts of a profile's middle and ends that are tried (short arms vary, tips are cut off or added),
# and what they cost: a profile that may be stretched at will fits either way up.
_STRETCHES = np.linspace(-0.08, 0.08, 7)
_ENDS = (-0.04, -0.02, 0.0, 0.02, 0.04)
_STRETCH_COST, _STRETCH_UNIT, _END_UNIT = 0.02, 0.05, 0.04
# Standard deviations that a profile is cut at: what another chromosome crosses is too dark.
_CLIP = 1.6
# Gaussian trend that is taken out, in chromosome lengths.
_TREND = 0.12
# Weights of the two kinds of evidence in the log-odds; fitted on synthetic spreads.
_WEIGHT_BANDS, _WEIGHT_WIDTH = 10.6, 14.7


def way_up(bands: Profile, width: Profile, name: str) -> tuple[float, float]:
    """Says which end of a chromosome of a class is its short arm, and where its centromere is.

    Args:
        bands: darkness (POINTS,), from tip to tip.
        width: (POINTS,), in units of its median.
        name: class name, ``1`` .. ``22``, ``X`` or ``Y``.

    Returns:
        The log-odds that the short arm is at the end of the profile, not at its beginning; and the
        centromere's place, 0 to 1, seen from the short arm's tip.
    """
    centromere = float(load_ideograms()[name].centromere)
    evidence, places = [], []
    for step in (1, -1):
        fit, shifted = _best_fit(bands[::step], name)
        pinch, place = _constriction(width[::step], shifted)
        evidence.append(_WEIGHT_BANDS * fit + _WEIGHT_WIDTH * pinch)
        places.append(place if centromere else 0.0)
    log_odds = evidence[1] - evidence[0]
    return log_odds, places[int(log_odds > 0)]


@cache
def template(name: str) -> Profile:
    """Returns the ideogram's band profile (POINTS,) of a class, from the p to the q telomere."""
    ideogram = load_ideograms()[name]
    fine = 2048
    at = (np.arange(fine) + 0.5) / fine
    band = np.clip(np.searchsorted(ideogram.edges, at, side="right") - 1, 0, None)
    stains = [b.stain for b in ideogram.bands]
    pale = PALE_GVAR.get(name, STAIN_LEVEL["gvar"])
    levels = np.array([pale if stain == "gvar" else STAIN_LEVEL[stain] for stain in stains])
    sigma = _BLUR / ideogram.length * fine
    # Beyond the tips is white background, which blurs into them.
    padded = np.pad(levels[band], fine // 4, constant_values=-0.3)
    smooth = ndimage.gaussian_filter1d(padded, sigma)[fine // 4 : -(fine // 4)]
    return np.interp(np.linspace(0, 1, POINTS), at, smooth)


def standard(profile: Profile) -> Profile:
    """Removes the slow trend, cuts what stands out, scales to unit length along the last axis."""
    trend = ndimage.gaussian_filter1d(profile, _TREND * POINTS, axis=-1, mode="nearest")
    level = profile - 0.7 * trend
    level = level - level.mean(axis=-1, keepdims=True)
    most = _CLIP * level.std(axis=-1, keepdims=True)
    level = np.clip(level, -most, most)
    level = level - level.mean(axis=-1, keepdims=True)
    norm = np.sqrt((level**2).sum(axis=-1, keepdims=True))
    scaled: Profile = level / np.maximum(norm, 1e-9)
    return scaled


@cache
def _warped(name: str) -> tuple[Profile, Profile, Profile]:
    """Returns standardized templates (K, POINTS) of all stretches, centromeres and costs (K,)."""
    ideogram = load_ideograms()[name]
    base = template(name)
    at = np.linspace(0, 1, POINTS)
    rows, places, costs = [], [], []
    for stretch in _STRETCHES:
        for top in _ENDS:
            for bottom in _ENDS:
                # Strip position u shows template position v(u).
                v = top + (1 + bottom - top) * at + 4 * stretch * at * (1 - at)
                rows.append(np.interp(v, at, base))
                places.append(float(np.interp(ideogram.centromere, v, at)))
                ends = (top / _END_UNIT) ** 2 + (bottom / _END_UNIT) ** 2
                costs.append(_STRETCH_COST * (ends + (stretch / _STRETCH_UNIT) ** 2))
    return standard(np.array(rows)), np.array(places), np.array(costs)


def _best_fit(bands: Profile, name: str) -> tuple[float, float]:
    """Returns the best correlation less cost over stretches, and where it puts the centromere."""
    rows, places, costs = _warped(name)
    fits = rows @ standard(bands) - costs
    best = int(np.argmax(fits))
    return float(fits[best]), float(places[best])


def _constriction(width: Profile, expected: float) -> tuple[float, float]:
    """Returns how much narrower the body is at a centromere's place, and the narrowest place.

    Narrowness is relative to the body around it, in units of the median width.
    """
    at = np.linspace(0, 1, POINTS)
    smooth = ndimage.gaussian_filter1d(width, 1.5, mode="nearest")
    beside = ndimage.gaussian_filter1d(np.minimum(width, 1.3), 9, mode="nearest")
    narrow = (beside - smooth) * (at > 0.04) * (at < 0.96)
    weight = np.exp(-0.5 * ((at - expected) / 0.04) ** 2)
    merit = narrow * weight
    best = int(np.argmax(merit))
    place = float(at[best]) if merit[best] > 0.02 else expected
    return float(np.clip(merit[best], 0, 0.4)), place
