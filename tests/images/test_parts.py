"""Which parts are chromosomes: rods of known length, width and number, next to disks and grains."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deepacc_d2.images.parts import find_group

LENGTH, WIDTH, COUNT = 50, 10, 30


def _rods(side: int = 600) -> np.ndarray:
    """Thirty rods in five rows, apart from each other, in the middle of a square."""
    mask = np.zeros((side, side), np.uint8)
    for n in range(COUNT):
        x, y = 120 + 70 * (n % 6), 120 + 70 * (n // 6)
        angle = np.deg2rad(37 * n)
        reach = np.array([np.cos(angle), np.sin(angle)]) * (LENGTH - WIDTH) / 2
        start, stop = ([round(v) for v in np.array([x, y]) + s * reach] for s in (-1, 1))
        cv2.line(mask, start, stop, 1, WIDTH)
    return mask


def test_rods_are_a_group_of_known_measures() -> None:
    group = find_group(_rods())
    assert group is not None
    assert len(group.areas) == COUNT
    assert group.width == pytest.approx(WIDTH, rel=0.2)
    # Rounded ends lack a part of their rectangle.
    assert group.areas.mean() == pytest.approx(LENGTH * WIDTH, rel=0.15)
    total = group.areas.sum() / WIDTH**2
    assert group.length == pytest.approx(total, rel=0.45)
    assert group.believed
    assert group.share == 1.0
    assert group.others == 0
    assert np.abs(group.box - [95, 95, 495, 425]).max() < 30


def test_a_nucleus_that_touches_rods_is_cut_out_of_them() -> None:
    mask = _rods()
    cv2.circle(mask, (300, 300), 75, 1, -1)
    group = find_group(mask)
    assert group is not None
    assert group.believed
    assert group.width == pytest.approx(WIDTH, rel=0.2)
    # Rods whose middle is under the nucleus are lost, and at most those that it touches shortened.
    under = sum(
        np.hypot(120 + 70 * (n % 6) - 300, 120 + 70 * (n // 6) - 300) < 75 + LENGTH / 2
        for n in range(COUNT)
    )
    assert len(group.areas) >= COUNT - under
    assert group.areas.max() < 2 * LENGTH * WIDTH


def test_grains_are_many_but_not_believed() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((600, 600), np.uint8)
    for x, y in rng.integers(100, 500, (300, 2)):
        cv2.circle(mask, (int(x), int(y)), 5, 1, -1)
    group = find_group(mask)
    assert group is None or not group.believed


def test_a_few_parts_are_not_believed_and_less_of_a_spread() -> None:
    whole, few = find_group(_rods()), _rods()
    few[:, 330:] = 0
    few[170:] = 0
    some = find_group(few)
    assert whole is not None
    assert some is None or (not some.believed and some.score < whole.score)


def test_grains_beside_rods_do_not_hide_them() -> None:
    mask = _rods(900)
    rng = np.random.default_rng(1)
    for x, y in rng.integers(620, 880, (400, 2)):
        cv2.circle(mask, (int(x), int(y)), 2, 1, -1)
    group = find_group(mask)
    assert group is not None
    assert group.believed
    assert group.width == pytest.approx(WIDTH, rel=0.2)
    assert group.box[2] < 560


def test_nothing_gives_no_group() -> None:
    assert find_group(np.zeros((50, 60), np.uint8)) is None
    assert find_group(np.ones((50, 60), np.uint8)) is None
    disk = np.zeros((300, 300), np.uint8)
    cv2.circle(disk, (150, 150), 80, 1, -1)
    assert find_group(disk) is None
