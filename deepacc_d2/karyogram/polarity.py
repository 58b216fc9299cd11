"""Which end of a straightened chromosome is its short arm, and where its centromere is.

Both ways up, the strip's profile of darkness is compared with the ideogram's bands of its class,
blurred to what a metaphase shows, over small stretches of either arm; and the strip's width with
the constriction that a centromere makes at its place. The better way up is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepacc_d2.data.synthetic.chromosome import PALE_GVAR, STAIN_LEVEL
from deepacc_d2.ideogram import load_ideograms
from deepacc_d2.karyogram.straighten import Straight

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


@dataclass(frozen=True)
class Polarity:
    """How a strip is to be shown.

    Attributes:
        flip: whether the strip must be turned by 180 degrees to have its p arm up.
        confidence: probability, 0.5 to 1, that this is right.
        centromere: position of the centromere along the strip *after* turning, from 0 (top, p
            telomere) to 1 (bottom), tips of the body.
        centromere_confidence: probability, 0 to 1, that it is within a twentieth of the length of
            that; None where it was not estimated.
        method: ``network`` or ``ideogram``, who said so.
    """

    flip: bool
    confidence: float
    centromere: float
    centromere_confidence: float | None = None
    method: str = "ideogram"


def find_polarity(straight: Straight, name: str) -> Polarity:
    """Decides which way up a strip of a class goes; see the module.

    Args:
        straight: the strip.
        name: class name, ``1`` .. ``22``, ``X`` or ``Y``.
    """
    bands, width = profiles(straight)
    centromere = float(load_ideograms()[name].centromere)
    evidence, places = [], []
    for flip in (False, True):
        step = -1 if flip else 1
        fit, shifted = _best_fit(bands[::step], name)
        pinch, place = _constriction(width[::step], shifted)
        evidence.append(_WEIGHT_BANDS * fit + _WEIGHT_WIDTH * pinch)
        places.append(place if centromere else 0.0)
    log_odds = evidence[1] - evidence[0]
    confidence = float(1 / (1 + np.exp(-abs(log_odds))))
    flip = bool(log_odds > 0)
    return Polarity(flip, confidence, places[int(flip)])


def profiles(straight: Straight) -> tuple[Profile, Profile]:
    """Returns mean darkness and width along a strip, each (POINTS,), from tip to tip.

    Darkness is the mean over the middle of the body, which its rim does not reach; width is in
    units of its median.
    """
    mask = straight.mask
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) < 2:
        return np.zeros(POINTS), np.ones(POINTS)
    dark = straight.dark[rows[0] : rows[-1] + 1].astype(np.float64)
    inside = mask[rows[0] : rows[-1] + 1]
    width = inside.sum(axis=1).astype(np.float64)
    columns = np.arange(mask.shape[1])
    middle = (inside * columns).sum(axis=1) / np.maximum(width, 1)
    core = inside & (np.abs(columns - middle[:, None]) <= 0.36 * np.median(width) + 0.5)
    total = core.sum(axis=1)
    mean = (dark * core).sum(axis=1) / np.maximum(total, 1)
    known = total > 0
    places = np.arange(len(mean))
    mean = np.interp(places, places[known], mean[known])
    at = np.linspace(0, len(mean) - 1, POINTS)
    scaled = width / max(float(np.median(width)), 1.0)
    return np.interp(at, places, mean), np.interp(at, places, scaled)


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
