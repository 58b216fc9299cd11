"""Axes of short bodies, drawn with a known one."""

from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.karyogram.cut import Cut
from deepacc_d2.karyogram.straighten import straighten
from deepacc_d2.karyogram.symmetry import mirror_axis


def drawn(shape, angle, size=60):
    """Draws ``shape(along, across)``, which returns darkness, with its axis at an angle."""
    ys, xs = np.mgrid[0:size, 0:size] - (size - 1) / 2
    turned = (xs + 1j * ys) * np.exp(-1j * angle)
    dark = shape(turned.real, turned.imag).astype(np.float32)
    return dark, dark > 0


def acrocentric(along, across):
    """As long as wide: two legs that stand apart, a dark knob above them."""
    knob = (along < -4) & (along > -11) & (np.abs(across) < 6)
    legs = (along >= -4) & (along < 11) & (np.abs(np.abs(across) - 3 - 0.3 * (along + 4)) < 4)
    return 0.9 * knob + legs * (0.35 + 0.2 * (along > 4))


def cross(along, across):
    """Four arms, two bands that differ."""
    arms = np.abs(np.abs(across) - 2.5 - 0.35 * np.abs(along)) < 3.5
    inside = arms & (np.abs(along) < 15)
    return inside * (0.4 + 0.4 * (along > 5) + 0.2 * (np.abs(along + 8) < 2))


def off(direction, angle):
    """Degrees between a line's direction and an angle."""
    return abs(np.degrees(np.angle((direction * np.exp(-1j * angle)) ** 2))) / 2


@pytest.mark.parametrize("shape", [acrocentric, cross])
@pytest.mark.parametrize("angle", [0.0, 0.6, 1.1, np.pi / 2, 2.2, 2.9])
def test_short_chromosomes_stand_along_their_chromatids(shape, angle):
    dark, mask = drawn(shape, angle)
    found = mirror_axis(mask, dark)
    assert off(found.direction, angle) < 9
    assert found.half_width < found.reach * 1.3
    straight = straighten(Cut(0, 0, dark, mask, whole=False))
    assert off(straight.axis[-1] - straight.axis[0], angle) < 12


def test_a_horseshoe_keeps_the_path_along_it():
    """Its mirror line runs across it, and its bands tell that it is none."""
    ys, xs = np.mgrid[0:50, 0:50] - 24.5
    radius, turn = np.hypot(xs, ys), np.arctan2(ys, xs)
    mask = (np.abs(radius - 11) < 5) & (np.abs(turn) < 2.1)
    dark = (mask * (0.3 + 0.6 * ((turn > 0.7) & (turn < 1.5)))).astype(np.float32)
    straight = straighten(Cut(0, 0, dark, mask, whole=False))
    rows = np.flatnonzero(straight.mask.any(axis=1))
    assert 34 < len(rows) < 60, "about the arc's length, not its width"
    level = straight.dark[rows[0] : rows[-1] + 1, straight.dark.shape[1] // 2]
    thirds = [part.mean() for part in np.array_split(level, 3)]
    assert max(thirds[0], thirds[2]) > 1.5 * min(thirds[0], thirds[2]), "one arm is the dark one"


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 40)])
def test_bodies_of_a_few_pixels_have_an_axis(shape):
    found = mirror_axis(np.ones(shape, bool), np.full(shape, 0.5, np.float32))
    assert np.isfinite(found.middle)
    assert np.isfinite(found.score)
    assert abs(found.direction) == pytest.approx(1)
    assert np.isfinite(found.points()).all()


def test_a_body_without_darkness_has_one_by_its_outline():
    found = mirror_axis(np.ones((30, 12), bool), np.zeros((30, 12), np.float32))
    assert off(found.direction, np.pi / 2) < 7
