"""Test-time augmentation: turned views, boxes turned back, looks merged into one answer."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deepacc_d2.detection.detector import Detector
from deepacc_d2.detection.network import Raw
from deepacc_d2.detection.select import TURNS, SelectionSettings
from deepacc_d2.detection.turns import merged, turned, turned_back
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import BOX_TO_SIZE, View, ViewSettings


def spread() -> Gray:
    """Three dark rectangles of different shapes, so that no two turns look the same."""
    image = np.full((120, 200), 230, dtype=np.uint8)
    for x0, y0, x1, y1 in BOXES:
        image[y0:y1, x0:x1] = 80
    return image


BOXES = [(10, 8, 40, 20), (150, 30, 162, 70), (60, 90, 100, 110)]


def dark_parts(image: Gray) -> np.ndarray:
    """Boxes (n, 4) of what is dark."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((image < 150).astype(np.uint8))
    boxes = stats[1:, :4].astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def sorted_rows(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.lexsort(boxes.T[::-1])]


def row(label: int | None, p: float) -> np.ndarray:
    """Probabilities (25,): p for a class, the rest for no chromosome."""
    values = np.zeros(25, dtype=np.float32)
    values[24] = 1 - p
    if label is not None:
        values[label] = p
    return values


def test_boxes_of_a_turned_image_come_back_to_their_places() -> None:
    image = spread()
    assert sorted(TURNS) == list(range(8))
    for turn in TURNS:
        found = dark_parts(turned(image, turn))
        back = turned_back(found, turn, image.shape)
        np.testing.assert_array_equal(sorted_rows(back), sorted_rows(np.array(BOXES)))
    shown = {turned(image, turn).tobytes() + bytes(turned(image, turn).shape) for turn in TURNS}
    assert len(shown) == 8


def test_the_first_four_turns_are_the_rotations() -> None:
    image = spread()
    expected = {np.rot90(image, k).tobytes() for k in range(4)}
    assert {turned(image, turn).tobytes() for turn in TURNS[:4]} == expected


def test_looks_are_averaged_and_a_look_that_misses_a_chromosome_says_there_is_none() -> None:
    first, second, far = [10, 10, 30, 50], [12, 10, 32, 50], [100, 10, 120, 50]
    looks: list[Raw] = [
        (np.array([first], np.float32), np.stack([row(3, 0.9)])),
        (np.array([far, second], np.float32), np.stack([row(5, 0.6), row(4, 0.6)])),
        (np.zeros((0, 4), np.float32), np.zeros((0, 25), np.float32)),
    ]
    boxes, probabilities = merged(looks, SelectionSettings())
    assert len(boxes) == 2
    np.testing.assert_allclose(boxes[0], (0.9 * np.array(first) + 0.6 * np.array(second)) / 1.5)
    np.testing.assert_allclose(boxes[1], far)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert probabilities[0, [3, 4, 24]] == pytest.approx([0.3, 0.2, 0.5])
    assert probabilities[1, [5, 24]] == pytest.approx([0.2, 0.8])


def test_crossing_chromosomes_of_two_looks_stay_two() -> None:
    # They overlap by more than a half, and each look is sure of both.
    upright, tilted = [10.0, 10, 40, 40], [14.0, 12, 44, 44]
    look = (
        np.array([upright, tilted], np.float32),
        np.stack([row(1, 0.95), row(7, 0.9)]),
    )
    swapped = look[0][::-1].copy(), look[1][::-1].copy()
    boxes, probabilities = merged([look, swapped], SelectionSettings())
    np.testing.assert_allclose(sorted_rows(boxes), [upright, tilted])
    assert sorted(probabilities[:, :24].argmax(axis=1)) == [1, 7]


def test_of_one_look_the_unlikely_boxes_have_no_say() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [21, 0, 31, 10]], np.float32)
    p = np.stack([row(2, 0.05), row(2, 0.8), row(2, 0.7)])
    found, probabilities = merged([(boxes, p)], SelectionSettings())
    np.testing.assert_array_equal(found, boxes[1:2])
    np.testing.assert_allclose(probabilities, p[1:2], rtol=1e-6)


class Wavering:
    """Finds dark parts, and names them 1 at its first look, 0 at all others."""

    def __init__(self) -> None:
        self.seen: list[Gray] = []

    def __call__(self, image: Gray) -> Raw:
        label = 1 if not self.seen else 0
        self.seen.append(image)
        boxes = dark_parts(image)
        return boxes, np.stack([row(label, 0.9)] * len(boxes))


LOOKING = ViewSettings(chromosome_size=20 / BOX_TO_SIZE, max_size=400, tone=False, fit_size=200)


def shown() -> View:
    return View(spread(), 1.0, (0, 0, 200, 120), False, True, "first")


@pytest.mark.parametrize("tta", [1, 2, 4, 8])
def test_a_detector_averages_as_many_looks_as_it_is_told(tta: int) -> None:
    network = Wavering()
    off = ViewSettings(**{**LOOKING.__dict__, "second_look": False})
    detector = Detector(network, off, selection=SelectionSettings(tta=tta))
    boxes, probabilities, _, view = detector.detect(spread(), shown())
    assert len(network.seen) == tta
    assert view.note == "first"
    np.testing.assert_allclose(sorted_rows(boxes), sorted_rows(np.array(BOXES)), atol=1e-4)
    np.testing.assert_allclose(probabilities[:, 0], 0.9 * (tta - 1) / tta, rtol=1e-5)
    np.testing.assert_allclose(probabilities[:, 1], 0.9 / tta, rtol=1e-5)
    assert detector.settings()["selection"]["tta"] == tta


def test_all_other_looks_are_at_the_view_of_the_second_one() -> None:
    image = np.full((700, 700), 235, dtype=np.uint8)
    for n in range(40):
        y, x = 60 + 90 * (n // 7), 60 + 85 * (n % 7)
        image[y : y + 30, x : x + 30] = 60
    small = cv2.resize(image, (420, 420), interpolation=cv2.INTER_AREA)
    view = View(np.asarray(small, np.uint8), 0.6, (0, 0, 700, 700), False, True, "first")
    settings = ViewSettings(30 / BOX_TO_SIZE, 1400, tone=False, fit_size=700)
    network = Wavering()
    detector = Detector(network, settings, selection=SelectionSettings(tta=4))
    found = detector.detect(image, view)
    sizes = [seen.shape[0] for seen in network.seen]
    assert len(sizes) == 5
    assert sizes[0] == 420
    assert len(set(sizes[1:])) == 1
    assert sizes[1] == pytest.approx(700, rel=0.05)
    assert len(found.boxes) == 40


@pytest.mark.parametrize("tta", [0, 9])
def test_a_number_of_looks_that_there_is_not_is_refused(tta: int) -> None:
    with pytest.raises(ConfigError, match=f"tta={tta}"):
        SelectionSettings(tta=tta)
