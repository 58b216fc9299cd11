from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepacc_d2.chromosomes import NUM_CLASSES, coco_categories
from deepacc_d2.evaluation.average_precision import average_precision
from deepacc_d2.evaluation.boxes import FlatBoxes, GroundTruth, flatten_predictions
from deepacc_d2.evaluation.types import ImagePrediction


def flat(coco: dict, predictions: list[ImagePrediction]) -> tuple[FlatBoxes, FlatBoxes]:
    truth = GroundTruth.from_coco(coco)
    return truth.boxes, flatten_predictions(truth.image_ids, predictions)[0]


def row_of_squares(num: int, class_index: int = 0) -> dict:
    """``num`` squares of 10 px, 20 px apart, on one image."""
    return {
        "images": [{"id": 1}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 1,
                "category_id": class_index + 1,
                "bbox": [20.0 * i, 0.0, 10.0, 10.0],
                "area": 100.0,
                "iscrowd": 0,
            }
            for i in range(num)
        ],
        "categories": coco_categories(),
    }


def detect(hits: list[bool], class_index: int = 0, shift: float = 0.0) -> list[ImagePrediction]:
    """Detections of descending score; a hit is on the next square, moved by ``shift``."""
    boxes, square = [], 0
    for number, hit in enumerate(hits):
        x, y = (20.0 * square + shift, 0.0) if hit else (20.0 * number, 500.0)
        square += hit
        boxes.append([x, y, x + 10, y + 10])
    scores = np.linspace(0.9, 0.1, len(hits))
    return [ImagePrediction(1, boxes, scores, [class_index] * len(hits), [], [], [])]


@pytest.mark.parametrize(
    ("num_gt", "hits", "area"),
    [
        (2, [True, True], 1.0),
        (2, [True, False, True], 0.5 * 1 + 0.5 * 2 / 3),
        (2, [False, True], 0.5 * 1 / 2),
        (4, [True, False, False, True, True], 0.25 * 1 + 0.5 * 3 / 5),
        (3, [False, False], 0.0),
    ],
)
def test_area_under_a_known_curve(num_gt, hits, area):
    result = average_precision(*flat(row_of_squares(num_gt, 5), detect(hits, 5)))
    assert result.ap50[5] == pytest.approx(area, abs=1e-12)
    assert np.isnan(np.delete(result.ap50, 5)).all()
    assert len(result.curves[5]) == num_gt
    assert len(result.curves[0]) == 0


def test_coco_ap_of_a_known_iou():
    # Moved by 2 of 10 px the IoU is 2/3: right at .50 .55 .60 .65 and wrong at the six above.
    result = average_precision(*flat(row_of_squares(3), detect([True] * 3, shift=2.0)))
    assert result.ap50[0] == pytest.approx(1.0)
    assert result.coco_ap[0] == pytest.approx(0.4)


def test_without_coco():
    result = average_precision(*flat(row_of_squares(3), detect([True] * 3)), coco=False)
    assert result.ap50[0] == pytest.approx(1.0)
    assert np.isnan(result.coco_ap).all()


def naive_area(truth: FlatBoxes, found: FlatBoxes, k: int, threshold: float) -> float:
    """AP from its definition: greedy matches by score, then the area of every recall step."""
    gt = [j for j in range(len(truth)) if truth.classes[j] == k]
    if not gt:
        return float("nan")
    ranked = sorted(
        (i for i in range(len(found)) if found.classes[i] == k), key=lambda i: -found.scores[i]
    )
    taken, hits = set(), []
    for i in ranked:
        best, best_iou = None, threshold
        for j in gt:
            if truth.image[j] != found.image[i] or j in taken:
                continue
            a, b = found.boxes[i], truth.boxes[j]
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            if w * h / union >= best_iou:
                best, best_iou = j, w * h / union
        hits.append(best is not None)
        taken.add(best)
    points, tp = [], 0
    for n, hit in enumerate(hits, start=1):
        tp += hit
        points.append((tp / len(gt), tp / n))
    area, previous = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - previous) * max(p for _, p in points[i:])
        previous = recall
    return area


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_area_equals_naive_loops(make_case, seed, crowded):
    truth, found = flat(*make_case(seed, num_images=8, crowded=crowded))
    expected = [naive_area(truth, found, k, 0.5) for k in range(NUM_CLASSES)]
    actual = average_precision(truth, found).ap50
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
    assert 0.1 < np.nanmean(actual) < 0.95


@pytest.mark.parametrize("seed", range(2))
def test_coco_ap_equals_pycocotools(make_case, seed):
    coco, predictions = make_case(seed, num_images=8)
    for i, annotation in enumerate(coco["annotations"]):
        annotation["id"] = i + 1
    api = COCO()
    api.dataset = coco
    results = [
        {
            "image_id": p.image_id,
            "category_id": int(c) + 1,
            "bbox": [
                float(b[0]),
                float(b[1]),
                float(b[2]) - float(b[0]),
                float(b[3]) - float(b[1]),
            ],
            "score": float(s),
        }
        for p in predictions
        for b, s, c in zip(p.boxes, p.scores, p.classes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    expected = np.where(precision > -1, precision, np.nan).mean(axis=(0, 1))
    actual = average_precision(*flat(coco, predictions)).coco_ap
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
