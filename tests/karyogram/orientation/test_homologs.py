"""Copies of a class that are asked together, against the sum over all ways up by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from deepacc_d2.karyogram.orientation.homologs import alike, weigh_together
from deepacc_d2.karyogram.orientation.strips import LENGTH, WIDTH, Strips


def strips(flips, *, classes=None, cells=None, seed=0):
    """One banded chromosome as often as there are flips, turned over where one is true."""
    rng = np.random.default_rng(seed)
    bands = np.repeat(rng.integers(40, 220, LENGTH // 8), 8)
    count = len(flips)
    dark = np.zeros((count, LENGTH, WIDTH), np.uint8)
    for number, flip in enumerate(flips):
        noisy = np.clip(bands + rng.normal(0, 6, LENGTH), 0, 255).astype(np.uint8)
        dark[number] = (noisy[::-1] if flip else noisy)[:, None]
    body = np.zeros_like(dark)
    body[:, :, 4:20] = 255
    unknown = np.full(count, np.nan, np.float32)
    return Strips(
        dark=dark,
        body=body,
        slimness=np.full(count, 4, np.float32),
        classes=np.zeros(count, np.int64) if classes is None else np.asarray(classes),
        cells=np.zeros(count, np.int64) if cells is None else np.asarray(cells),
        up=unknown,
        centromere=unknown,
        apart=np.ones(count, bool),
    )


def test_copies_that_stand_alike_are_told_from_such_that_do_not():
    pairs = alike(strips([False, False, True]))
    assert pairs[0, 1] > 1
    assert pairs[0, 2] < -1
    assert pairs[1, 2] < -1
    np.testing.assert_allclose(pairs, pairs.T)
    assert not np.diag(pairs).any()


@pytest.mark.parametrize("odds", [(3.0, -0.4), (3.0, 0.2, -0.5), (-2.0, 1.0, 0.0, 4.0)])
def test_what_copies_say_together_is_the_sum_over_all_ways_up(odds):
    some = strips([False] * len(odds))
    pairs = alike(some)
    found = weigh_together(some, np.array(odds))
    up, down = np.zeros(len(odds)), np.zeros(len(odds))
    for ways in itertools.product((True, False), repeat=len(odds)):
        weight = np.prod(
            [1 / (1 + np.exp(-o if w else o)) for o, w in zip(odds, ways, strict=True)]
        )
        for first, second in itertools.combinations(range(len(odds)), 2):
            r = pairs[first, second] if ways[first] == ways[second] else -pairs[first, second]
            weight *= 1 / (1 + np.exp(-r))
        up += weight * np.array(ways)
        down += weight * ~np.array(ways)
    np.testing.assert_allclose(found, np.log(up / down), atol=1e-8)


def test_an_unsure_copy_follows_a_sure_one():
    assert weigh_together(strips([False, False]), np.array([5.0, -0.5]))[1] > 0
    assert weigh_together(strips([False, True]), np.array([5.0, 0.5]))[1] < 0


def test_other_classes_other_cells_and_unknown_ones_say_nothing():
    odds = np.array([5.0, -0.5])
    for kept in (
        strips([False, False], classes=[0, 1]),
        strips([False, False], cells=[0, 1]),
        strips([False, False], classes=[-1, -1]),
        strips([False] * 9)[:0],
    ):
        np.testing.assert_array_equal(weigh_together(kept, odds[: len(kept)]), odds[: len(kept)])
    many = np.linspace(-1, 1, 30)
    np.testing.assert_array_equal(weigh_together(strips([False] * 30), many), many)
