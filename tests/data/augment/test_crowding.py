"""Moving isolated chromosomes: drawn bars, of which it is known where each of their pixels is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T

from deepacc_d2.data.augment.crowding import Move, PlacingTransform, RandomCrowding, isolated
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.spread import WHITE

SIZE = (200, 260)
Bar = tuple[int, int, int, int, int]


def draw(*bars: Bar) -> tuple[np.ndarray, np.ndarray]:
    """Bars x0, y0, x1, y1 of a gray level, and boxes two pixels wider on every side."""
    image = np.full(SIZE, int(WHITE), dtype=np.uint8)
    boxes = np.zeros((len(bars), 4))
    for row, (x0, y0, x1, y1, gray) in enumerate(bars):
        image[y0:y1, x0:x1] = np.minimum(image[y0:y1, x0:x1], gray)
        boxes[row] = x0 - 2, y0 - 2, x1 + 2, y1 + 2
    return image, boxes


LONE: Bar = (20, 20, 30, 60, 80)
CROSS: tuple[Bar, Bar] = ((100, 50, 110, 100, 90), (85, 70, 130, 80, 100))
FAR: Bar = (200, 120, 212, 150, 70)


def darkness(image: np.ndarray) -> float:
    return float((WHITE - image.astype(float)).sum())


def extent(image: np.ndarray) -> np.ndarray:
    """XYXY of what is darker than the background by 35 gray levels."""
    rows, columns = np.nonzero(image <= WHITE - 35)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_isolated_are_those_that_touch_no_other() -> None:
    image, boxes = draw(LONE, *CROSS, FAR)
    found = isolated(image, boxes)
    assert [cutout.row for cutout in found] == [0, 3]
    first = found[0]
    # Two pixels of pale edge around the bar, and a box two pixels wider than it.
    assert first.corner == (18, 18)
    assert first.mask.shape == (44, 14)
    assert first.mask.all()
    assert first.margins.tolist() == [2, 2, 2, 2]


def test_a_small_one_within_the_box_of_a_large_one_that_it_touches() -> None:
    """The large one's part stays in its box, but is of two chromosomes."""
    image, boxes = draw((50, 50, 60, 120, 80), (50, 110, 120, 120, 80), (60, 90, 70, 100, 90))
    boxes[0] = boxes[1] = [48, 48, 122, 122]  # one bent chromosome, drawn of two bars
    assert isolated(image, boxes[[0, 2]]) == []
    assert [c.row for c in isolated(image, boxes[[0]])] == [0]


def test_an_arm_beyond_a_pale_band_is_not_left_behind() -> None:
    image, _ = draw((50, 50, 60, 80, 80), (50, 86, 60, 100, 80))
    assert isolated(image, np.array([[48.0, 48, 62, 102]])) == []


def test_what_leaves_its_box_or_the_image_is_not_isolated() -> None:
    image, boxes = draw(LONE, (0, 100, 10, 140, 80))
    boxes[0, 3] -= 10
    assert isolated(image, boxes) == []
    assert isolated(np.full(SIZE, 240, np.uint8), boxes) == []
    assert isolated(image, np.zeros((0, 4))) == []


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 217.0])
def test_a_moved_box_encloses_its_pixels_and_darkness_stays(angle: float) -> None:
    image, boxes = draw(LONE, FAR)
    (cutout, _) = isolated(image, boxes)
    transform = PlacingTransform(image, [Move(cutout, (120.0, 100.0), additive=True, angle=angle)])
    found = transform.apply_image(image)
    assert found.dtype == np.uint8
    assert darkness(found) == pytest.approx(darkness(image), rel=0.02)
    (box, other) = transform.apply_box(boxes)
    np.testing.assert_array_equal(other, boxes[1])
    # Alone, without the bar that stayed.
    alone = found.copy()
    alone[118:152, 198:214] = int(WHITE)
    expected = extent(alone) + np.array([-2, -2, 2, 2])
    np.testing.assert_allclose(box, expected, atol=1)
    assert (box[:2] + box[2:]) / 2 == pytest.approx([120, 100], abs=1.5)
    # Nothing is left where it was.
    assert (found[18:62, 18:32] == WHITE).all()


def test_at_the_border_a_chromosome_stays_whole() -> None:
    image, boxes = draw(LONE, FAR)
    for center in ((0.0, 0.0), (260.0, 200.0), (130.0, -30.0)):
        move = Move(isolated(image, boxes)[0], center, additive=False, angle=45.0)
        transform = PlacingTransform(image, [move])
        assert darkness(transform.apply_image(image)) == pytest.approx(darkness(image), rel=0.02)
        (box, _) = transform.apply_box(boxes)
        assert (box[:2] >= 0).all()
        assert (box[2:] <= [260, 200]).all()


@pytest.mark.parametrize("additive", [True, False])
def test_where_two_cross_light_is_multiplied_or_the_darker_one_seen(additive: bool) -> None:
    image, boxes = draw(LONE, FAR)
    move = Move(isolated(image, boxes)[0], (206.0, 135.0), additive, angle=0.0)
    found = PlacingTransform(image, [move]).apply_image(image)
    expected = WHITE * (80 / WHITE) * (70 / WHITE) if additive else 70
    assert found[135, 206] == pytest.approx(expected, abs=1)


def test_one_that_lies_where_another_was_is_cut_out_whole() -> None:
    """The first moves to the place that the second leaves."""
    image, boxes = draw(LONE, FAR)
    first, second = isolated(image, boxes)
    moves = [Move(first, (206.0, 135.0), True, 0.0), Move(second, (100.0, 100.0), True, 0.0)]
    transform = PlacingTransform(image, moves)
    found = transform.apply_image(image)
    assert darkness(found) == pytest.approx(darkness(image), rel=0.01)
    for box, gray in zip(transform.apply_box(boxes), (80, 70), strict=True):
        x0, y0, x1, y1 = np.rint(box).astype(int)
        inside = found[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4]
        np.testing.assert_allclose(inside, gray, atol=1)


def crowd(image: np.ndarray, boxes: np.ndarray, seed: int, **options: float) -> T.AugInput:
    np.random.seed(seed)  # noqa: NPY002 - Detectron2 draws from NumPy's global generator
    inputs = T.AugInput(image.copy(), boxes=boxes.copy())
    RandomCrowding(**{"prob": 1.0, **options})(inputs)
    return inputs


def spread() -> tuple[np.ndarray, np.ndarray]:
    """Twelve bars of different sizes in rows, none touching."""
    bars: list[Bar] = []
    for n in range(12):
        x, y = 15 + 60 * (n % 4), 15 + 62 * (n // 4)
        bars.append((x, y, x + 8 + n % 3, y + 25 + 2 * n, 60 + 5 * n))
    return draw(*bars)


def test_boxes_keep_their_number_and_order_and_enclose_what_moved() -> None:
    image, boxes = spread()
    moved_in_all = 0
    for seed in range(25):
        found = crowd(image, boxes, seed)
        assert found.boxes.shape == boxes.shape
        assert found.image.shape == image.shape
        moved = (found.boxes != boxes).any(axis=1)
        assert 1 <= moved.sum() <= 8
        moved_in_all += moved.sum()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        # Whatever is dark now is in a box.
        covered = np.zeros(SIZE, dtype=bool)
        for x0, y0, x1, y1 in found.boxes:
            rows = slice(int(np.floor(y0)), int(np.ceil(y1)))
            covered[rows, int(np.floor(x0)) : int(np.ceil(x1))] = True
        assert covered[found.image <= WHITE - 35].all()
        # Where light is multiplied, or one hides another, darkness only gets less.
        assert darkness(found.image) <= 1.02 * darkness(image)
        assert darkness(found.image) >= 0.6 * darkness(image)
    assert moved_in_all > 50


def test_a_moved_chromosome_touches_or_lies_near_another() -> None:
    image, boxes = spread()
    near = 0
    for seed in range(25):
        found = crowd(image, boxes, seed, most=1)
        (row,) = np.flatnonzero((found.boxes != boxes).any(axis=1))
        low = np.maximum(found.boxes[row, :2], boxes[:, :2])
        high = np.minimum(found.boxes[row, 2:], boxes[:, 2:])
        overlaps = (high > low).all(axis=1)
        overlaps[row] = False
        near += overlaps.any()
    assert near > 15


def test_the_seed_decides() -> None:
    image, boxes = spread()
    first, again, other = (crowd(image, boxes, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert (first.image != other.image).any()


def test_an_image_without_isolated_chromosomes_is_unchanged() -> None:
    cases = [draw(*CROSS), draw(LONE), draw()]
    for image, boxes in cases:
        for seed in range(5):
            found = crowd(image, boxes, seed)
            np.testing.assert_array_equal(found.image, image)
            np.testing.assert_array_equal(found.boxes, boxes)
    image, boxes = spread()
    for seed in range(5):
        np.testing.assert_array_equal(crowd(image, boxes, seed, prob=0.0).image, image)


def test_a_transform_is_of_one_image() -> None:
    image, boxes = spread()
    transform = PlacingTransform(image, [Move(isolated(image, boxes)[0], (90, 90), True, 0)])
    with pytest.raises(ValueError, match="made for an image"):
        transform.apply_image(cv2.resize(image, (20, 30)))
    with pytest.raises(NotImplementedError, match="only boxes"):
        transform.apply_coords(np.zeros((2, 2)))


@pytest.mark.parametrize("options", [{"most": 0}, {"prob": -0.1}, {"prob": 1.1}])
def test_bad_arguments(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="crowding needs most >= 1 and 0 <= prob <= 1"):
        RandomCrowding(**options)
