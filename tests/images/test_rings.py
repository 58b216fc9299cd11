from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepacc_d2.images.rings import area, bounds, fill, thinned, to_rle, trace

Y, X = np.mgrid[:60, :80]


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Levels of a disc, positive inside; pixel i's middle is at i + 0.5."""
    return radius - np.hypot(X + 0.5 - x, Y + 0.5 - y)


def test_a_line_runs_where_the_levels_are_zero() -> None:
    (line,) = trace(disc(31.3, 22.6, 12.4))
    distance = np.hypot(line[:, 0] - 31.3, line[:, 1] - 22.6)
    assert np.abs(distance - 12.4).max() < 0.05
    assert area(line) == pytest.approx(np.pi * 12.4**2, rel=0.01)


@pytest.mark.parametrize(
    "levels",
    [
        disc(40, 30, 20) * np.where(disc(40, 30, 8) > 0, -1, 1),  # a ring
        np.maximum(disc(20, 30, 8), disc(60, 30, 9)),  # two parts
        disc(3, 2, 20),  # at the border
        np.ones((60, 80)),
    ],
)
def test_filling_the_lines_gives_the_pixels_back(levels: np.ndarray) -> None:
    found = fill([line.tolist() for line in trace(levels)], levels.shape)
    assert (found != (levels > 0)).sum() <= 0.02 * (levels > 0).sum()


def test_one_pixel_is_a_ring_and_no_pixel_is_none() -> None:
    levels = np.full((5, 7), -1.0)
    assert trace(levels) == []
    levels[2, 3] = 1.0
    (line,) = trace(levels)
    assert bounds([line.tolist()]) == pytest.approx((3, 2, 4, 3), abs=0.01)


def test_thinned_lines_stay_within_what_was_allowed() -> None:
    (line,) = trace(disc(40, 30, 18))
    few = thinned(line, 0.2)
    assert len(few) < len(line) / 2
    assert np.abs(np.hypot(few[:, 0] - 40, few[:, 1] - 30) - 18).max() < 0.1
    assert area(few) == pytest.approx(area(line), rel=0.03)


def test_rings_of_fewer_than_three_corners_enclose_nothing() -> None:
    assert not fill([[(1.0, 1.0)], [(1.0, 1.0), (5.0, 5.0)], []], (8, 8)).any()


def test_a_part_of_the_image_is_filled_as_the_whole_is() -> None:
    rings = [line.tolist() for line in trace(disc(40, 30, 18))]
    whole = fill(rings, (60, 80))
    np.testing.assert_array_equal(fill(rings, (25, 30), (20, 10)), whole[10:35, 20:50])


@pytest.mark.parametrize("rings", [0, 1, 2, 3])
def test_run_lengths_are_those_of_the_filled_pixels(rings: int) -> None:
    # Outer line, a hole in it, and a part of its own that sticks out of the image.
    lines = [
        [(3.2, 2.0), (41.7, 4.4), (38.1, 30.6), (5.0, 27.3)],
        [(12.0, 10.0), (20.5, 9.0), (18.0, 19.9)],
        [(44.0, 33.0), (70.0, 31.0), (60.0, 52.0)],
    ][:rings]
    shape = (40, 50)
    rle = to_rle([*lines, [(1.0, 1.0), (2.0, 2.0)]], shape)
    assert rle["size"] == list(shape)
    assert (coco_mask.decode(rle).astype(bool) == fill(lines, shape)).all()
    assert coco_mask.area(rle) == fill(lines, shape).sum()
