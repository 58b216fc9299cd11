"""Estimates how many bands a cell's chromosomes show: the band level of a haploid set.

A laboratory gives the resolution of a karyogram as the number of bands that are seen in one of each
of the 24 chromosomes, by the ideograms of 400, 550 and 850 bands. Here the light and dark bands of
each straightened chromosome are counted where its darkness rises and falls, and brought to a whole
set by what each class has at 550 bands. The result is an estimate: a merged pair of bands, a stump
or noise changes the count of a chromosome. Its uncertainty is from how the chromosomes of the cell
differ, and from what was measured on drawn chromosomes of known level (docs/KARYOGRAM.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from deepacc_d2.ideogram import load_ideograms
from deepacc_d2.karyogram.strip import Strip

LEAST = 20
"""Chromosomes that have to be seen well for an estimate."""

# A band stands out from its neighbors by this share of the chromosome's range of darkness.
_PROMINENCE = 0.07
# Bands finer than so many image pixels are noise.
_SMOOTH_PX = 0.8
# Relative error of an estimate on drawn cells, rounded up (tests/benchmarks/band_level.py).
_SPREAD = 0.08
# 90 of 100 normal values are within so many standard deviations.
_NINETY = 1.645


@dataclass(frozen=True)
class BandLevel:
    """An estimated band level.

    Attributes:
        bands: of a haploid set.
        low, high: where it lies with a probability of about 90 %.
        chromosomes: that were counted.
    """

    bands: int
    low: int
    high: int
    chromosomes: int

    def __str__(self) -> str:
        """Returns it as a page tells it."""
        return f"about {self.bands} bands ({self.low} to {self.high}, estimated)"


def count_bands(strip: Strip) -> int:
    """Returns how many light and dark bands a straightened chromosome shows; 0 if none."""
    profile = band_profile(strip)
    if len(profile) < 5:
        return 0
    low, high = np.percentile(profile, [5, 95])
    if high - low < 0.03:
        return 1
    # The tips are where it ends, and no bands of their own.
    least = _PROMINENCE * (high - low)
    dark, _ = signal.find_peaks(np.pad(profile, 1, constant_values=-1.0), prominence=least)
    return max(2 * len(dark) - 1, 1) + _light_ends(profile, dark - 1, least)


def _light_ends(profile: NDArray[np.float64], dark: NDArray[np.intp], least: float) -> int:
    """Returns how many of a chromosome's two ends are light bands: a level beside the last peak."""
    if not len(dark):
        return 0
    ends = 0
    for part in (profile[: dark[0]][::-1], profile[dark[-1] + 1 :]):
        # A light band falls off and then stays: half of it is within a narrow range.
        drop = profile[dark[0]] - part if len(part) else part
        ends += bool(len(part) > 0.04 * len(profile) and (drop > least).mean() > 0.3)
    return ends


def band_profile(strip: Strip) -> NDArray[np.float64]:
    """Returns the mean darkness (N,) of the middle of a chromosome's body, without its rims."""
    dark = strip.dark.astype(np.float64)
    body = dark > 0.12
    widths = body.sum(axis=1)
    if not widths.any():
        return np.zeros(0)
    usual = float(np.median(widths[widths > 0]))
    rows = np.flatnonzero(widths >= 0.5 * usual)
    if len(rows) < 2:
        return np.zeros(0)
    columns = np.arange(dark.shape[1])
    middle = (body * columns).sum(axis=1) / np.maximum(widths, 1)
    core = np.abs(columns - middle[:, None]) <= 0.3 * usual
    mean = (dark * core).sum(axis=1) / np.maximum(core.sum(axis=1), 1)
    smooth = ndimage.gaussian_filter1d(
        mean[rows[0] : rows[-1] + 1], max(_SMOOTH_PX * strip.zoom, 0.5), mode="nearest"
    )
    rim = round(0.25 * usual)
    return np.asarray(smooth[rim : len(smooth) - rim])


@cache
def _usual() -> dict[str, int]:
    """Returns the bands of each class at 550 bands."""
    return {name: len(ideogram.bands) for name, ideogram in load_ideograms().items()}


def estimate_band_level(strips: Sequence[Strip]) -> BandLevel | None:
    """Estimates the band level of a cell; None where too few of its chromosomes are seen well.

    Args:
        strips: of all its chromosomes; those with a class that were cut well are counted.
    """
    own = [strip for strip in strips if strip.placed and strip.cut]
    if len(own) < LEAST:
        return None
    usual = _usual()
    counts = np.array([count_bands(strip) for strip in own], dtype=np.float64)
    weights = np.array([usual[strip.name] for strip in own], dtype=np.float64)
    total = sum(usual.values())
    share = counts.sum() / weights.sum()
    # Standard error of a ratio of sums, by the residuals of the chromosomes.
    off = counts - share * weights
    error = float(np.sqrt((off**2).sum() * len(own) / max(len(own) - 1, 1)) / weights.sum())
    level = share * total
    spread = float(np.hypot(error * total, _SPREAD * level))
    low, high = level - _NINETY * spread, level + _NINETY * spread
    bands, least, most = (round(max(v, 0) / 10) * 10 for v in (level, low, high))
    return BandLevel(bands, least, most, len(own))
