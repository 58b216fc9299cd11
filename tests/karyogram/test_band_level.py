"""The band level: counted on strips whose bands are known."""

from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.ideogram import load_ideograms
from deepacc_d2.karyogram.band_level import LEAST, count_bands, estimate_band_level
from deepacc_d2.karyogram.strip import Strip


def banded(name: str, bands: int, noise: float = 0.0, seed: int = 0) -> Strip:
    """A strip of alternating bands, light at both ends, each 12 rows high, on white."""
    rows = np.repeat(0.35 + 0.4 * (np.arange(bands) % 2), 12)
    body = np.tile(rows[:, None], (1, 20))
    body = body + np.random.default_rng(seed).normal(0, noise, body.shape)
    dark = np.pad(body, ((6, 6), (5, 5))).clip(0, 1).astype(np.float32)
    return Strip(name, True, dark, 3.0, 0.4, 0.9, cut=True)


@pytest.mark.parametrize("bands", [5, 9, 15, 31])
@pytest.mark.parametrize("noise", [0.0, 0.06])
def test_bands_are_counted(bands: int, noise: float) -> None:
    assert abs(count_bands(banded("1", bands, noise)) - bands) <= 2


def test_the_level_is_that_of_a_whole_set() -> None:
    ideograms = load_ideograms()
    total = sum(len(i.bands) for i in ideograms.values())
    names = [name for name in CLASSES for _ in range(2)]
    for share in (0.6, 1.0):
        strips = [banded(n, max(3, round(share * len(ideograms[n].bands)) | 1)) for n in names]
        level = estimate_band_level(strips)
        assert level is not None
        assert level.bands == pytest.approx(share * total, rel=0.12)
        assert level.low < level.bands < level.high
        assert level.chromosomes == len(names)
        # Half of the classes are enough, and give about the same.
        half = estimate_band_level(strips[::2][:LEAST])
        assert half is not None
        assert half.bands == pytest.approx(level.bands, rel=0.15)
    assert "estimated" in str(level)


def test_too_few_or_strange_chromosomes_give_no_level() -> None:
    assert estimate_band_level([]) is None
    assert estimate_band_level([banded("1", 9)] * (LEAST - 1)) is None
    blank = Strip("1", True, np.zeros((1, 1), np.float32), 1.0, 0.0, 0.5, cut=True)
    flat = Strip("1", True, np.full((40, 9), 0.5, np.float32), 1.0, 0.0, 0.5, cut=True)
    assert (count_bands(blank), count_bands(flat)) == (0, 1)
    level = estimate_band_level([blank] * LEAST)
    assert level is not None
    assert level.low == 0
