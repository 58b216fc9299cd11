"""The size of chromosomes by geometry: boxes of rectangles at random angles, counted one by one."""

from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.images.size import MARGIN, MAX_SLENDERNESS, chromosome_size


def _mean_box(length: float, width: float) -> float:
    """Square root of the mean area of the box around a rectangle, over all angles, by corners."""
    angles = np.linspace(0, np.pi / 2, 2001)
    corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * [length / 2, width / 2]
    turn = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])
    turned = np.einsum("cj,ijn->cin", corners, turn)
    sides = turned.max(axis=0) - turned.min(axis=0)
    return float(np.sqrt(np.trapezoid(sides.prod(axis=0), angles) / (np.pi / 2)))


@pytest.mark.parametrize(("length", "width"), [(60, 10), (60, 20), (30, 20), (25, 25), (6, 1)])
def test_a_cell_of_equal_rectangles(length: float, width: float) -> None:
    areas = np.full(46, float(length * width))
    found = chromosome_size(areas, width)
    assert found == pytest.approx(MARGIN * _mean_box(length, width), rel=1e-3)


def test_of_one_area_the_long_and_thin_have_the_larger_box() -> None:
    areas = np.full(46, 600.0)
    sizes = [chromosome_size(areas, width) for width in (10, 14, 20)]
    assert sizes[0] > 1.1 * sizes[1] > 1.15 * sizes[2]


def test_touching_missing_and_foreign_parts_shift_it_little() -> None:
    single = np.full(46, 600.0)
    own = chromosome_size(single, 12)
    pairs = np.concatenate([np.full(20, 600.0), np.full(13, 1200.0)])
    assert chromosome_size(pairs, 12) == pytest.approx(own, rel=0.01)
    all_touch = np.full(5, 46 * 600 / 5.0)
    assert own < chromosome_size(all_touch, 12) < 1.2 * own
    assert chromosome_size(single[:40], 12) == pytest.approx(own, rel=0.1)
    assert chromosome_size(np.append(single, 3000.0), 12) == pytest.approx(own, rel=0.1)


def test_an_impossible_width_is_bounded() -> None:
    areas = np.full(46, 400.0)
    assert chromosome_size(areas, 40) == pytest.approx(MARGIN * 40 * np.sqrt(1 + 2 / np.pi))
    longest = MAX_SLENDERNESS * 2**2
    assert chromosome_size(areas, 2) == pytest.approx(chromosome_size(np.full(46, longest), 2))
