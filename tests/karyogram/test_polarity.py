"""Which way up: against strips made of the bands' table, and synthetic spreads' truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.bands import POINTS
from deepacc_d2.ideogram import load_ideograms
from deepacc_d2.karyogram.measure import measure_synthetic, report
from deepacc_d2.karyogram.polarity import find_polarity, profiles
from deepacc_d2.karyogram.straighten import Straight

DARKNESS = {"gneg": 0.3, "gpos25": 0.45, "gpos50": 0.6, "gpos75": 0.75, "gpos100": 0.9}


def strip(name, *, length=160, flip=False, pinch=0.25, half=8, noise=0.0):
    """A strip with the bands of a class, of ``length`` pixels for chromosome 1, p arm up."""
    ideogram = load_ideograms()[name]
    rows = round(length * ideogram.length)
    at = (np.arange(rows) + 0.5) / rows
    band = np.searchsorted(ideogram.edges, at, side="right") - 1
    level = np.array([DARKNESS.get(ideogram.bands[b].stain, 0.5) for b in band])
    level = ndimage.gaussian_filter1d(level, 2.0)
    level += np.random.default_rng(0).normal(0, noise, rows)
    widths = half * (1 - pinch * np.exp(-0.5 * ((at - ideogram.centromere) * rows / 2.5) ** 2))
    across = np.arange(-half - 2, half + 3)
    mask = np.abs(across)[None, :] <= widths[:, None]
    dark = np.where(mask, level[:, None], 0).astype(np.float32)
    axis = 1j * np.arange(rows, dtype=float)
    if flip:
        dark, mask = dark[::-1, ::-1].copy(), mask[::-1, ::-1].copy()
    return Straight(dark, mask, axis, 1.0)


@pytest.mark.parametrize("name", CLASSES)
def test_bands_of_the_table_are_turned_p_arm_up(name):
    centromere = load_ideograms()[name].centromere
    for flip in (False, True):
        found = find_polarity(strip(name, flip=flip), name)
        assert found.flip == flip
        assert 0.5 <= found.confidence <= 1
        assert abs(found.centromere - centromere) < 0.08


def test_confidence_falls_where_bands_and_waist_say_nothing():
    plain = Straight(np.full((100, 16), 0.6, np.float32), np.ones((100, 16), bool), None, 1.0)
    assert find_polarity(plain, "9").confidence < 0.7
    assert find_polarity(strip("9"), "9").confidence > 0.9


def test_profile_is_the_mean_of_the_body_not_of_its_background():
    bands, width = profiles(strip("1"))
    assert bands.shape == width.shape == (POINTS,)
    assert 0.25 < bands.min() < bands.max() < 1
    assert width.min() < 0.85
    assert abs(np.median(width) - 1) < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 40)])
def test_strips_of_a_few_pixels_have_a_polarity(shape):
    tiny = Straight(np.zeros(shape, np.float32), np.ones(shape, bool), None, 1.0)
    found = find_polarity(tiny, "21")
    assert 0.5 <= found.confidence <= 1
    assert 0 <= found.centromere <= 1


def test_synthetic_spreads_come_p_arm_up():
    measured = measure_synthetic(4, seed=3)
    right = np.array(measured.right)
    assert len(right) > 170
    assert right.mean() > 0.9
    well = np.array(measured.iou) > 0.85
    assert right[well].mean() > 0.94
    assert np.median(measured.ends) < 0.3, "strips end at the telomeres, within a third of a width"
    assert np.median(measured.centromere) < 0.2
    assert abs(np.median(measured.area) - 1) < 0.12
    text = report(measured)
    assert f"p arm up: {100 * right.mean():.1f} %" in text
    assert "22 " in text
