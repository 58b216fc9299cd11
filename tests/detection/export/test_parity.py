from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from deepacc_d2.detection.detector import Detector
from deepacc_d2.detection.export.parity import Parity, compare, map50
from deepacc_d2.detection.network import Raw
from deepacc_d2.detection.select import SelectionSettings
from deepacc_d2.images.view import ViewSettings


def rows(*classes: tuple[int, float]) -> NDArray[np.float32]:
    """Probabilities (P, 25): that of one class, the rest for no chromosome."""
    found = np.zeros((len(classes), 25), dtype=np.float32)
    for row, (index, probability) in enumerate(classes):
        found[row, index] = probability
        found[row, 24] = 1 - probability
    return found


BOXES = np.array([[0, 0, 10, 30], [50, 50, 90, 70], [200, 9, 220, 60]], dtype=np.float32)
FOUND: Raw = (BOXES, rows((3, 0.9), (7, 0.8), (23, 0.95)))


def test_the_same_in_another_order() -> None:
    order = [2, 0, 1]
    parity = compare(FOUND, (BOXES[order] + 0.25, FOUND[1][order]))
    assert parity == Parity(images=1, chromosomes=3, pixels=0.25)
    assert parity.same
    assert parity.agreement == 1


def test_each_difference_counts() -> None:
    moved = BOXES + np.float32([[0.75], [0], [0]])
    parity = compare(FOUND, (moved, FOUND[1]))
    assert (parity.pixels, parity.same, parity.agreement) == (0.75, False, 1)

    parity = compare(FOUND, (BOXES, rows((3, 0.9), (8, 0.8), (23, 0.95))))
    assert (parity.classes, parity.same) == (1, False)
    assert parity.score == pytest.approx(0.8)
    assert parity.agreement == pytest.approx(2 / 3)

    parity = compare(FOUND, (BOXES, rows((3, 0.898), (7, 0.8), (23, 0.95))))
    assert parity.score == pytest.approx(0.002, abs=1e-6)
    assert not parity.same

    gone = compare(FOUND, (BOXES[1:], FOUND[1][1:]))
    assert (gone.unmatched, gone.same) == (1, False)
    far = compare(FOUND, (BOXES + np.float32([[0], [0], [30]]), FOUND[1]))
    assert far.unmatched == 2


def test_one_on_the_threshold_may_be_on_either_side() -> None:
    settings = SelectionSettings(min_foreground=0.5)
    above, below = rows((3, 0.5004), (7, 0.8)), rows((3, 0.4998), (7, 0.8))
    assert compare((BOXES[:2], above), (BOXES[:2], below), settings).unmatched == 0
    assert compare((BOXES[:2], below), (BOXES[:2], above), settings).same
    surely = rows((3, 0.6), (7, 0.8))
    assert compare((BOXES[:2], surely), (BOXES[:2], below), settings).unmatched == 1


def test_nothing_found() -> None:
    nothing: Raw = np.zeros((0, 4), dtype=np.float32), np.zeros((0, 25), dtype=np.float32)
    assert compare(nothing, nothing) == Parity(images=1)
    assert compare(nothing, FOUND).unmatched == compare(FOUND, nothing).unmatched == 3
    assert compare(nothing, FOUND).agreement == 0


def test_sums_over_images_keep_the_largest_difference() -> None:
    moved = (BOXES + np.float32(0.5), FOUND[1])
    shifted = compare(FOUND, FOUND) + compare(FOUND, moved)
    assert shifted == Parity(images=2, chromosomes=6, pixels=0.5)
    assert str(shifted).startswith("6 chromosomes of 2 images: 0 found by one only, 0 of another")


def test_map50_in_annotated_pixels() -> None:
    coco = {
        "images": [{"id": 7}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 4, "bbox": [0, 0, 20, 60]},
            {"id": 2, "image_id": 7, "category_id": 9, "bbox": [100, 100, 80, 40]},
        ],
    }
    # The image is shown at half its size; the second class is wrong.
    view = ViewSettings(normalize=False, tone=False, max_size=250, fit_size=250)
    image = np.zeros((400, 500), dtype=np.uint8)
    assert map50(Detector(lambda _: FOUND, view), [image], coco) == pytest.approx(50)
