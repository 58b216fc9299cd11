"""Alignment finds which strips stand alike, against strips that were turned at random."""

from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.karyogram.orientation.labels import align_classes, homolog_gains
from deepacc_d2.karyogram.orientation.strips import LENGTH, WIDTH, Strips


def strips_of(classes, cells, up, rng, noise=0.1):
    """Strips with bands that their class decides, turned over where ``up`` is False."""
    bands = {c: np.repeat(np.random.default_rng(c).random(16), LENGTH // 16) for c in set(classes)}
    dark = np.zeros((len(classes), LENGTH, WIDTH), np.uint8)
    body = np.zeros_like(dark)
    body[:, :, 4:-4] = 255
    for row, (index, first) in enumerate(zip(classes, up, strict=True)):
        level = bands[index] + rng.normal(0, noise, LENGTH)
        level = np.roll(level, rng.integers(-3, 4))
        dark[row, :, 4:-4] = np.clip(200 * level, 0, 255).astype(np.uint8)[:, None]
        if not first:
            dark[row] = dark[row, ::-1]
    count = len(classes)
    unknown = np.full(count, np.nan, np.float32)
    return Strips(
        dark,
        body,
        np.ones(count, np.float32),
        np.asarray(classes),
        np.asarray(cells),
        unknown,
        unknown,
        np.ones(count, bool),
    )


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_a_class_is_aligned_and_the_ideogram_decides_its_sign(rng):
    classes = np.repeat([0, 20], 120)
    up = rng.random(240) < 0.5
    # The ideogram is right in two of three, and as sure when it is wrong.
    right = rng.random(240) < 0.67
    start = np.where(up == right, 2.0, -2.0)
    gains, signs = align_classes(strips_of(classes, np.arange(240), up, rng), start)
    assert ((gains > 0) == up).mean() > 0.99
    assert [s.name for s in signs] == [CLASSES[0], CLASSES[20]]
    assert all(s.decided and abs(s.agree - 0.67) < 0.12 for s in signs)


def test_a_sign_that_the_ideogram_does_not_know_stays_open(rng):
    up = rng.random(150) < 0.5
    start = np.where(rng.random(150) < 0.5, 2.0, -2.0)
    gains, signs = align_classes(strips_of(np.full(150, 3), np.arange(150), up, rng), start)
    if not signs[0].decided:
        assert not gains.any()
    agree = ((gains > 0) == up).mean()
    assert agree in (pytest.approx(0.5, abs=0.2), pytest.approx(1, abs=0.05)) or agree < 0.05


def test_homologs_speak_for_and_against(rng):
    strips = strips_of([5, 5, 7, 7, 9], [0, 0, 0, 0, 0], [True, False, True, True, True], rng)
    gains = homolog_gains(strips, np.array([3.0, -3.0, 3.0, -3.0, 3.0]))
    assert (gains[:2] > 0.1).all(), "both turned alike"
    assert (gains[2:4] < -0.05).all(), "one of them turned over"
    assert gains[4] == 0, "no homolog"
    other_cell = strips.replace(cells=np.arange(5))
    assert not homolog_gains(other_cell, np.ones(5)).any()
