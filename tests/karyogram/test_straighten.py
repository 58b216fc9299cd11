"""Straightening: drawn bodies whose length, width and bands are known."""

from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.karyogram.cut import Cut
from deepacc_d2.karyogram.polarity import profiles
from deepacc_d2.karyogram.straighten import Straight, straighten, trimmed

HALF = 8.0


def body(axis, stripes, half=HALF, margin=20):
    """Draws a round-ended body around an axis (complex, 0.1 px apart), dark as ``stripes(s)``."""
    axis = axis - complex(axis.real.min() - margin, axis.imag.min() - margin)
    height, width = int(axis.imag.max() + margin) + 1, int(axis.real.max() + margin) + 1
    ys, xs = np.mgrid[0:height, 0:width]
    pixels = (xs + 1j * ys).ravel()
    coarse = axis[::5]
    distance = np.full(pixels.shape, np.inf)
    nearest = np.zeros(pixels.shape, int)
    for number, point in enumerate(coarse):
        away = np.abs(pixels - point)
        closer = away < distance
        distance[closer], nearest[closer] = away[closer], number
    s = nearest * 0.5
    tip = np.clip(half - np.minimum(s, 0.5 * (len(coarse) - 1) - s), 0, None)
    mask = (distance**2 + 0.5 * tip**2 <= half**2) & (nearest > 0) & (nearest < len(coarse) - 1)
    mask = mask.reshape(height, width)
    dark = stripes(s).reshape(height, width)
    return Cut(0, 0, np.where(mask, dark, 0).astype(np.float32), mask, whole=False)


def curve(turn, length):
    """An axis of a length (px) that turns by ``turn(s)`` radians."""
    s = np.arange(0, length, 0.1)
    return np.cumsum(np.exp(1j * turn(s))) * 0.1


def stripes(s):
    return 0.5 + 0.35 * np.sin(2 * np.pi * s / 18 + 0.02 * s)


def agreement(straight, length):
    """Best correlation of a strip's profile with the stripes, over both directions."""
    found, _ = profiles(straight)
    known = stripes(np.linspace(0, length, len(found)))
    return max(np.corrcoef(known, p)[0, 1] for p in (found, found[::-1]))


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 4, 1.3, np.pi / 2, 2.6])
def test_a_straight_rod_keeps_length_width_and_bands(angle):
    straight = straighten(body(curve(lambda s: angle + 0 * s, 110), stripes))
    rows, columns = straight.mask.any(axis=1), straight.mask.any(axis=0)
    assert abs(rows.sum() - 110) < 3
    assert abs(columns.sum() - 2 * HALF) < 3
    assert agreement(straight, 110) > 0.97


@pytest.mark.parametrize("bend", [0.8, 1.6, 2.6])
def test_a_bent_rod_straightens_to_its_stripes(bend):
    length = 150
    straight = straighten(body(curve(lambda s: bend * s / length, length), stripes))
    assert abs(straight.mask.any(axis=1).sum() - length) < 0.04 * length
    assert agreement(straight, length) > 0.95
    widths = straight.mask.sum(axis=1)
    assert abs(np.median(widths) - 2 * HALF) < 2


def test_an_s_shaped_rod_straightens_to_its_stripes():
    length = 170
    turn = lambda s: 1.1 * np.sin(2 * np.pi * s / length)  # noqa: E731
    straight = straighten(body(curve(turn, length), stripes))
    assert abs(straight.mask.any(axis=1).sum() - length) < 0.04 * length
    assert agreement(straight, length) > 0.95


def test_a_hairpin_shows_each_band_once():
    length, radius = 160, 15.0
    turn = lambda s: np.clip((s - 55) / radius, 0, np.pi)  # noqa: E731
    straight = straighten(body(curve(turn, length), stripes))
    assert agreement(straight, length) > 0.95
    # No row shows the other arm beside the body.
    assert np.percentile(straight.mask.sum(axis=1), 90) < 2.6 * HALF


def test_a_short_round_body_stands_along_its_longer_side():
    length = 22
    straight = straighten(body(curve(lambda s: 0.7 + 0 * s, length), stripes, half=6.0))
    assert abs(straight.mask.any(axis=1).sum() - length) < 4
    direction = straight.axis[-1] - straight.axis[0]
    assert abs(np.exp(2j * np.angle(direction)) - np.exp(1.4j)) < 0.3


def test_zoom_scales_the_strip():
    cut = body(curve(lambda s: s / 120, 120), stripes)
    one, three = straighten(cut, 1.0), straighten(cut, 3.0)
    assert abs(three.dark.shape[0] / one.dark.shape[0] - 3) < 0.15
    assert three.axis.shape == (three.dark.shape[0],)
    assert np.corrcoef(profiles(one)[0], profiles(three)[0])[0, 1] > 0.98


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (5, 40)])
def test_a_plain_crop_is_stood_up_as_it_is(shape):
    dark = np.linspace(0, 1, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    straight = straighten(Cut(3, 4, dark, np.ones(shape, bool), whole=True), 2.0)
    assert straight.dark.shape == (2 * max(shape), 2 * min(shape))
    assert straight.mask.all()


@pytest.mark.parametrize("points", [[(2, 2)], [(0, 0), (0, 1)], [(0, 0), (3, 3), (6, 0)]])
def test_masks_of_a_few_pixels_do_not_fail(points):
    mask = np.zeros((8, 8), bool)
    for y, x in points:
        mask[y, x] = True
    straight = straighten(Cut(0, 0, mask.astype(np.float32), mask, whole=False))
    assert straight.dark.size
    assert np.isfinite(straight.dark).all()


def test_stumps_of_a_crossing_are_trimmed_and_the_body_is_kept():
    mask = np.zeros((100, 41), bool)
    mask[:, 12:29] = True
    mask[40:60, :] = True
    shown = trimmed(Straight(mask.astype(np.float32), mask, np.zeros(100, complex), 1.0))
    assert shown[50, :6].max() < 0.05
    assert shown[:, 13:28].min() > 0.9
    assert np.array_equal(shown[:35], mask[:35].astype(np.float32))
