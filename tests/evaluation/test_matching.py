from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.evaluation.boxes import GroundTruth, flatten_predictions
from deepacc_d2.evaluation.matching import _greedy, confusion_matrix, match
from deepacc_d2.evaluation.types import ImagePrediction

SQUARE = [0.0, 0.0, 10.0, 10.0]


def shifted(by: float) -> list[float]:
    """SQUARE moved along x: IoU with it is (10 - by) / (10 + by)."""
    return [by, 0.0, 10.0 + by, 10.0]


def flats(gt, found):
    """One image; gt: (box, class), found: (box, class, score)."""
    coco = {
        "images": [{"id": 1}],
        "annotations": [
            {
                "id": i,
                "image_id": 1,
                "category_id": c + 1,
                "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]],
            }
            for i, (b, c) in enumerate(gt)
        ],
    }
    boxes, classes, scores = ([f[i] for f in found] for i in range(3))
    prediction = ImagePrediction(1, boxes, scores, classes, [], [], [])
    truth = GroundTruth.from_coco(coco)
    return flatten_predictions(truth.image_ids, [prediction])[0], truth.boxes


@pytest.mark.parametrize(
    ("shift", "threshold", "expected"),
    [
        (0.0, 1.0, True),
        (2.0, 0.66, True),  # IoU 2/3
        (2.0, 0.67, False),
        (10 / 3, 0.49999, True),  # IoU 1/2
        (5.0, 0.5, False),  # IoU 1/3
        (10.0, 0.01, False),
    ],
)
def test_shifted_square_matches_by_its_known_iou(shift, threshold, expected):
    found, truth = flats([(SQUARE, 0)], [(shifted(shift), 0, 0.9)])
    assert (match(found, truth, threshold, same_class=True)[0] == 0) == expected


def test_threshold_is_inclusive():
    found, truth = flats([(SQUARE, 0)], [([0.0, 0.0, 10.0, 5.0], 0, 0.9)])
    assert match(found, truth, 0.5, same_class=True).tolist() == [0]


def test_higher_score_takes_first_even_with_lower_iou():
    found, truth = flats([(SQUARE, 0)], [(SQUARE, 0, 0.6), (shifted(2), 0, 0.9)])
    assert found.scores.tolist() == pytest.approx([0.9, 0.6])
    assert match(found, truth, 0.5, same_class=True).tolist() == [0, -1]


def test_loser_takes_its_second_choice():
    gt = [(SQUARE, 0), (shifted(3), 0)]
    found, truth = flats(gt, [(SQUARE, 0, 0.9), (shifted(1), 0, 0.8)])
    assert match(found, truth, 0.5, same_class=True).tolist() == [0, 1]


def test_wrong_class_takes_nothing_unless_classes_are_ignored():
    found, truth = flats([(SQUARE, 4)], [(SQUARE, 5, 0.9), (shifted(1), 4, 0.6)])
    assert match(found, truth, 0.5, same_class=True).tolist() == [-1, 0]
    assert match(found, truth, 0.5, same_class=False).tolist() == [0, -1]


def test_boxes_without_area_match_nothing():
    point = [5.0, 5.0, 5.0, 5.0]
    found, truth = flats([(point, 0)], [(point, 0, 0.9)])
    assert match(found, truth, 0.5, same_class=True).tolist() == [-1]


def serial_match(found, truth, threshold, same_class):
    """The definition, written as loops over detections and ground truth."""
    result, taken = [], set()
    for i in range(len(found)):
        best, best_iou = -1, threshold
        for j in range(len(truth)):
            if found.image[i] != truth.image[j] or j in taken:
                continue
            if same_class and found.classes[i] != truth.classes[j]:
                continue
            a, b = found.boxes[i], truth.boxes[j]
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            if w * h / union >= best_iou:
                best, best_iou = j, w * h / union
        taken.add(best)
        taken.discard(-1)
        result.append(best)
    return result


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("threshold", [0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_equals_serial_loops(make_case, seed, threshold, same_class):
    coco, predictions = make_case(seed, num_images=3, crowded=True)
    truth = GroundTruth.from_coco(coco)
    found = flatten_predictions(truth.image_ids, predictions)[1]
    expected = serial_match(found, truth.boxes, threshold, same_class)
    actual = match(found, truth.boxes, threshold, same_class=same_class)
    assert actual.tolist() == expected
    assert (actual >= 0).any()


def test_greedy_on_random_bipartite_graphs():
    rng = np.random.default_rng(0)
    for _ in range(50):
        weights = rng.random((12, 9)) * (rng.random((12, 9)) < 0.5)
        expected, free = [], np.ones(9, dtype=bool)
        for row in weights:
            best = int(np.argmax(row * free))
            best = best if row[best] * free[best] > 0 else -1
            expected.append(best)
            if best >= 0:
                free[best] = False
        rows, columns = np.nonzero(weights)
        shuffle = rng.permutation(len(rows))
        rows, columns = rows[shuffle], columns[shuffle]
        assert _greedy(rows, columns, weights[rows, columns], 12, 9).tolist() == expected


def test_confusion_matrix_of_a_known_scene():
    gt = [(SQUARE, 0), ([50.0, 0, 60, 10], 1), ([0.0, 50, 10, 60], 2)]
    found = [
        (shifted(1), 0, 0.9),  # right
        ([51.0, 0, 61, 10], 7, 0.8),  # class 1 named 7
        ([80.0, 80, 90, 90], 3, 0.7),  # nothing there; class 2 is missed
    ]
    expected = np.zeros((25, 25), dtype=int)
    expected[0, 0] = expected[1, 7] = expected[24, 3] = expected[2, 24] = 1
    actual = confusion_matrix(*flats(gt, found), 0.5, 24)
    np.testing.assert_array_equal(actual, expected)
