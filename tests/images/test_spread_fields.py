"""Spreads that one look at a whole field does not show: in very large ones, and next to nuclei."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase
from deepacc_d2.images.spread import Spread, find_spread

LEVEL = 205


@pytest.fixture(scope="module")
def metaphase() -> tuple[np.ndarray, np.ndarray, float]:
    """An image, XYXY around its chromosomes, and the median square root of a box's area."""
    config = SyntheticConfig(nucleus_rate=0, debris_rate=0, seed=5)
    image, record = render_metaphase(config, case=2, cell=1)
    image = cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    boxes = np.array([a["bbox"] for a in record["annotations"]]) * 0.7
    sides = boxes[:, 2:].copy()
    boxes[:, 2:] += boxes[:, :2]
    around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return image, around, float(np.median(np.sqrt(sides.prod(axis=1))))


def _field(side: int, nuclei: int, radius: int, keep_free: tuple[int, int, int, int]) -> np.ndarray:
    """A square field with a little noise and dark nuclei, none of which meets ``keep_free``."""
    rng = np.random.default_rng(3)
    patch = np.clip(LEVEL + rng.normal(0, 2.5, (500, 500)), 0, 255).astype(np.uint8)
    field = np.tile(patch, (-(-side // 500), -(-side // 500)))[:side, :side].copy()
    x0, y0, x1, y1 = keep_free
    drawn = 0
    while drawn < nuclei:
        x, y = (int(v) for v in rng.integers(0, side, 2))
        if x0 - radius < x < x1 + radius and y0 - radius < y < y1 + radius:
            continue
        cv2.circle(field, (x, y), radius, int(rng.integers(70, 120)), -1)
        drawn += 1
    return field


def _paste(field: np.ndarray, image: np.ndarray, x: int, y: int) -> None:
    """Takes from the field what the image is darker than its background."""
    dark = np.clip(np.percentile(image, 90) - image.astype(float), 0, 255)
    height, width = image.shape
    place = field[y : y + height, x : x + width]
    place[:] = np.clip(place - dark, 0, 255).astype(np.uint8)


def _check(spread: Spread | None, around: np.ndarray, size: float) -> None:
    """The box is off by less than a chromosome, the size by less than the margin and a tenth."""
    assert spread is not None
    assert np.abs(np.array(spread.box) - around).max() < 1.5 * size
    assert 0.95 < spread.chromosome_size / size < 1.45


@pytest.mark.parametrize("side", [4000, 7000])
def test_a_spread_in_a_very_large_field_of_nuclei(metaphase, side):
    image, around, size = metaphase
    x, y = int(0.6 * side), int(0.3 * side)
    height, width = image.shape
    field = _field(side, side // 160, 150, (x, y, x + width, y + height))
    _paste(field, image, x, y)
    _check(find_spread(field), around + np.array([x, y, x, y]), size)


def test_of_two_in_a_very_large_field_the_other_is_reported(metaphase):
    image, around, size = metaphase
    height = len(image)
    field = _field(6000, 0, 1, (0, 0, 1, 1))
    _paste(field, image, 1000, 1200)
    _paste(field, image[: height // 2], 4500, 4000)
    spread = find_spread(field)
    _check(spread, around + np.array([1000, 1200, 1000, 1200]), size)
    assert spread.others == 1


def test_nuclei_that_touch_the_spread(metaphase):
    image, around, size = metaphase
    height, width = image.shape
    alone = find_spread(image)
    field = _field(1200, 0, 1, (0, 0, 1, 1))
    _paste(field, image, 200, 200)
    for x, y in ((200, 250), (200 + width, 180 + height), (180 + width, 220)):
        cv2.circle(field, (x, y), 110, 90, -1)
    spread = find_spread(field)
    assert spread is not None
    assert spread.chromosome_size == pytest.approx(alone.chromosome_size, rel=0.2)
    x0, y0, x1, y1 = spread.box
    inner = around + 200 + np.array([2, 2, -2, -2]) * size
    assert x0 < inner[0]
    assert y0 < inner[1]
    assert x1 > inner[2]
    assert y1 > inner[3]


def test_a_rough_nucleus_is_no_spread(metaphase):
    image, around, size = metaphase
    height, width = image.shape
    field = _field(1100, 0, 1, (0, 0, 1, 1))
    rng = np.random.default_rng(4)
    grains = cv2.resize(rng.normal(0, 25, (170, 170)), (340, 340), interpolation=cv2.INTER_CUBIC)
    disk = np.zeros((340, 340), np.uint8)
    cv2.circle(disk, (170, 170), 165, 1, -1)
    place = field[20:360, 20:360]
    place[disk > 0] = np.clip(120 + grains, 0, 255)[disk > 0].astype(np.uint8)
    _paste(field, image, 1100 - width, 1100 - height)
    spread = find_spread(field)
    shift = [1100 - width, 1100 - height]
    # What is near is shown too; the size is the chromosomes' own.
    assert spread is not None
    x0, y0, x1, y1 = around + np.array([*shift, *shift])
    assert spread.box[0] < x0 + size
    assert spread.box[1] < y0 + size
    assert np.abs(np.array(spread.box[2:]) - [x1, y1]).max() < size
    assert 0.95 < spread.chromosome_size / size < 1.45


def test_the_largest_pictures_take_bounded_time(metaphase):
    image, _, _ = metaphase
    field = _field(12000, 120, 200, (7000, 4000, 8400, 5400))
    _paste(field, image, 7300, 4300)
    start = time.process_time()
    spread = find_spread(field)
    taken = time.process_time() - start
    assert spread is not None
    x0, y0, x1, y1 = spread.box
    assert 7290 < x0 < x1 < 8100
    assert 4290 < y0 < y1 < 5000
    # Processor time of all threads; a picture of nuclei alone takes the longest.
    start = time.process_time()
    find_spread(_field(12000, 120, 200, (0, 0, 1, 1)))
    slowest = time.process_time() - start
    assert max(taken, slowest) < 20
