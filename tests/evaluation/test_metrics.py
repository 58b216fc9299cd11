from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS, GROUP_OF
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import SUMMARY_KEYS, ImagePrediction

NAMES = (
    *("map50", "map50_max", "coco_ap", "acc", "aer", "precision", "recall", "f1", "wcr"),
    *("per_class", "per_group", "num_images", "num_gt", "settings"),
)


def scene(*classes_of_images: list[int]) -> dict:
    """Images with 10 px squares 20 px apart, one per given class."""
    annotations = [
        {"image_id": i, "category_id": k + 1, "bbox": [20.0 * n, 0.0, 10.0, 10.0], "iscrowd": 0}
        for i, classes in enumerate(classes_of_images, start=1)
        for n, k in enumerate(classes)
    ]
    for number, annotation in enumerate(annotations):
        annotation |= {"id": number, "area": 100.0}
    return {
        "images": [{"id": i} for i in range(1, len(classes_of_images) + 1)],
        "annotations": annotations,
    }


def squares(
    image_id: int, classes: list[int], *, scores: float | list[float] = 0.9, places=None
) -> ImagePrediction:
    """The same boxes as detections and as top-1 boxes, on the squares of :func:`scene`."""
    places = range(len(classes)) if places is None else places
    boxes = [[20.0 * n, 0.0, 20.0 * n + 10, 10.0] for n in places]
    scores = np.broadcast_to(scores, len(classes))
    return ImagePrediction(image_id, boxes, scores, classes, boxes, scores, classes)


def nothing(image_id: int) -> ImagePrediction:
    return ImagePrediction(image_id, *[[]] * 6)


def test_perfect_predictions():
    coco = scene([0, 1, 23], [5])
    metrics = compute_metrics(coco, [squares(1, [0, 1, 23]), squares(2, [5])])
    summary = metrics.summary()
    assert list(summary) == list(SUMMARY_KEYS)
    assert summary.pop("aer") == 0
    assert list(summary.values()) == pytest.approx([100.0] * 8)
    assert (metrics.num_images, metrics.num_gt) == (2, 4)
    assert np.trace(metrics.confusion) == metrics.confusion.sum() == 4


def test_known_errors():
    # Image 1: 1 right, one "2" named 3 (same group), one 4 named Y (other group), one X missed.
    # Image 2: right, and one spurious 21.
    coco = scene([0, 1, 3, 22], [5])
    found = [squares(1, [0, 2, 23]), squares(2, [5, 20], places=[0, 7])]
    metrics = compute_metrics(coco, found)
    tp, fp, fn = 2, 3, 3
    assert metrics.acc == pytest.approx(100 * tp / (tp + fp + fn))
    assert metrics.aer == pytest.approx(100 * (fp + fn) / 5)
    assert metrics.precision == pytest.approx(100 * tp / (tp + fp))
    assert metrics.recall == pytest.approx(100 * tp / (tp + fn))
    assert metrics.f1 == pytest.approx(100 * 2 * tp / (2 * tp + fp + fn))
    assert metrics.wcr == 0
    assert metrics.map50 == pytest.approx(100 * 2 / 5)
    row = metrics.per_group["A"]
    assert (row["gt"], row["tp"], row["fp"], row["fn"]) == (2, 1, 1, 1)
    assert (row["within_group_confusions"], row["between_group_confusions"]) == (1, 0)
    assert row["acc"] == pytest.approx(100 / 3)
    row = metrics.per_group["B"]
    assert (row["within_group_confusions"], row["between_group_confusions"]) == (0, 1)
    assert metrics.per_group["C"]["missed"] == 1
    assert metrics.per_group["G"]["spurious"] == 1
    assert metrics.per_class["1"]["tp"] == 1
    assert metrics.per_class["3"]["fp"] == 1
    assert metrics.per_class["2"]["fn"] == 1
    assert [(c.image_id, c.tp, c.fp, c.fn) for c in metrics.images] == [(1, 1, 2, 3), (2, 1, 1, 0)]


def test_score_threshold_is_inclusive_and_only_for_acc():
    coco = scene([0, 1])
    metrics = compute_metrics(coco, [squares(1, [0, 1], scores=[0.5, 0.49])])
    assert metrics.acc == pytest.approx(50.0)
    assert metrics.map50 == pytest.approx(100.0)
    relaxed = compute_metrics(coco, [squares(1, [0, 1], scores=[0.5, 0.49])], score_threshold=0.4)
    assert relaxed.acc == 100.0


def test_agnostic_nms_drops_a_second_name_for_one_place():
    coco = scene([0])
    twice = squares(1, [0, 7], scores=[0.9, 0.8], places=[0, 0])
    assert compute_metrics(coco, [twice]).acc == 100.0
    assert compute_metrics(coco, [twice], agnostic_nms=1.0).acc == pytest.approx(50.0)


def test_map_max_comes_from_top1_boxes_after_class_nms():
    coco = scene([0, 0])
    box = [0.0, 0.0, 10.0, 10.0]
    other = [20.0, 0.0, 30.0, 10.0]
    close = [0.0, 0.0, 10.0, 9.0]
    found = ImagePrediction(1, [box], [0.9], [0], [box, close, other], [0.9, 0.8, 0.7], [0, 0, 0])
    metrics = compute_metrics(coco, [found])
    assert metrics.map50 == pytest.approx(50.0)
    assert metrics.map50_max == pytest.approx(100.0)
    without_nms = compute_metrics(coco, [found], class_nms=1.0)
    assert without_nms.map50_max == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_max_detections_is_a_limit_per_image_over_all_classes():
    coco = scene([0, 1, 2])
    found = [squares(1, [0, 1, 2], scores=[0.7, 0.9, 0.8])]
    metrics = compute_metrics(coco, found, max_detections=2)
    assert metrics.per_class["1"]["ap50"] == metrics.per_class["1"]["ap50_max"] == 0
    assert metrics.map50 == pytest.approx(200 / 3)
    assert metrics.map50_max == pytest.approx(200 / 3)


def overlap(a, b) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def naive_counts(coco: dict, predictions: list[ImagePrediction]) -> list[tuple[int, int, int]]:
    """tp, fp, fn per image by plain loops: threshold, agnostic NMS, greedy matching."""
    result = []
    by_id = {p.image_id: p for p in predictions}
    for image in coco["images"]:
        p = by_id[image["id"]]
        rows = sorted(
            zip(p.top1_scores, p.top1_boxes.astype(float), p.top1_classes, strict=True),
            key=lambda row: -row[0],
        )
        kept = []
        for row in rows:
            if row[0] >= 0.5 and all(overlap(row[1], other[1]) <= 0.7 for other in kept):
                kept.append(row)
        gt = [
            (
                [
                    a["bbox"][0],
                    a["bbox"][1],
                    a["bbox"][0] + a["bbox"][2],
                    a["bbox"][1] + a["bbox"][3],
                ],
                a["category_id"] - 1,
            )
            for a in coco["annotations"]
            if a["image_id"] == image["id"]
        ]
        total, tp = len(gt), 0
        for _, box, k in kept:
            ious = [overlap(box, b) if c == k else -1.0 for b, c in gt]
            if ious and max(ious) >= 0.5:
                gt.pop(int(np.argmax(ious)))
                tp += 1
        result.append((tp, len(kept) - tp, total - tp))
    return result


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_naive_loops(make_case, seed):
    coco, predictions = make_case(seed, crowded=seed % 2 == 1)
    metrics = compute_metrics(coco, predictions)
    expected = naive_counts(coco, predictions)
    assert [(c.tp, c.fp, c.fn) for c in metrics.images] == expected
    tp, fp, fn = np.sum(expected, axis=0)
    assert metrics.acc == pytest.approx(100 * tp / (tp + fp + fn))
    assert metrics.aer == pytest.approx(100 * (fp + fn) / len(coco["annotations"]))
    assert metrics.wcr == pytest.approx(100 * np.mean([f + n == 0 for _, f, n in expected]))
    for key, total in (("tp", tp), ("fp", fp), ("fn", fn), ("gt", tp + fn)):
        assert sum(row[key] for row in metrics.per_class.values()) == total
        assert sum(row[key] for row in metrics.per_group.values()) == total


def test_groups_and_confusion_matrix_agree(make_case):
    coco, predictions = make_case(1)
    metrics = compute_metrics(coco, predictions)
    confusion = metrics.confusion
    assert confusion[:24].sum() == metrics.num_gt
    wrong = confusion[:24, :24].sum() - np.trace(confusion[:24, :24])
    total = sum(
        row["within_group_confusions"] + row["between_group_confusions"]
        for row in metrics.per_group.values()
    )
    assert total == wrong > 0
    for group, names in DENVER_GROUPS.items():
        aps = [metrics.per_class[n]["ap50"] for n in names]
        assert metrics.per_group[group]["map50"] == pytest.approx(np.nanmean(aps))
    inside = sum(
        confusion[i, j]
        for i, a in enumerate(CLASSES)
        for j, b in enumerate(CLASSES)
        if i != j and GROUP_OF[a] == GROUP_OF[b]
    )
    assert sum(r["within_group_confusions"] for r in metrics.per_group.values()) == inside


def test_order_of_everything_is_irrelevant(make_case):
    coco, predictions = make_case(2)
    expected = json.dumps(compute_metrics(coco, predictions).to_dict())
    rng = np.random.default_rng(0)
    shuffled = {
        "images": [coco["images"][i] for i in rng.permutation(len(coco["images"]))],
        "annotations": [coco["annotations"][i] for i in rng.permutation(len(coco["annotations"]))],
    }
    moved = []
    for i in rng.permutation(len(predictions)):
        p = predictions[i]
        a, b = rng.permutation(len(p.scores)), rng.permutation(len(p.top1_scores))
        moved.append(
            ImagePrediction(
                p.image_id,
                *(p.boxes[a], p.scores[a], p.classes[a]),
                *(p.top1_boxes[b], p.top1_scores[b], p.top1_classes[b]),
            )
        )
    assert json.dumps(compute_metrics(shuffled, moved).to_dict()) == expected


def test_equal_scores_do_not_depend_on_order():
    coco = scene([0, 1, 2])
    forward = squares(1, [0, 1, 2, 5], scores=0.8, places=[0, 1, 2, 0])
    backward = squares(1, [5, 2, 1, 0], scores=0.8, places=[0, 2, 1, 0])
    assert compute_metrics(coco, [forward]).to_dict() == compute_metrics(coco, [backward]).to_dict()


def test_input_is_not_changed(make_case):
    coco, predictions = make_case(0)
    before = copy.deepcopy(coco)
    compute_metrics(coco, predictions)
    assert coco == before


def test_json_has_the_promised_keys(make_case):
    coco, predictions = make_case(0)
    content = json.loads(json.dumps(compute_metrics(coco, predictions).to_dict(), allow_nan=False))
    assert tuple(content) == NAMES
    assert list(content["per_class"]) == list(CLASSES)
    assert set(content["per_class"]["1"]) == {
        *("ap50", "ap50_max", "coco_ap", "precision", "recall", "f1", "gt", "tp", "fp", "fn")
    }
    assert list(content["per_group"]) == list("ABCDEFG")
    assert content["per_class"]["X"]["ap50"] is None  # has no ground truth in this case
    assert content["settings"]["score_threshold"] == 0.5


@pytest.mark.parametrize("predictions", [[], [nothing(1)], [nothing(1), nothing(2)]])
def test_no_detections(predictions):
    metrics = compute_metrics(scene([0, 1], [2]), predictions)
    expected = dict.fromkeys(SUMMARY_KEYS, 0.0) | {"aer": 100.0}
    assert metrics.summary() == expected
    assert metrics.confusion[:, 24].sum() == 3


def test_image_without_an_entry_counts_as_missed():
    metrics = compute_metrics(scene([0], [0]), [squares(2, [0])])
    assert metrics.recall == 50.0
    assert metrics.wcr == 50.0


def test_no_ground_truth():
    metrics = compute_metrics(scene([], []), [squares(1, [0])])
    summary = metrics.to_dict()
    for key in ("map50", "map50_max", "coco_ap", "aer", "recall"):
        assert summary[key] is None
        assert math.isnan(metrics.summary()[key])
    assert summary["precision"] == summary["acc"] == summary["f1"] == 0
    assert summary["wcr"] == 50.0
    json.dumps(summary, allow_nan=False)


def test_no_images():
    metrics = compute_metrics({"images": [], "annotations": []}, [])
    assert all(math.isnan(value) for value in metrics.summary().values())


def broken(**changes) -> ImagePrediction:
    fields = {
        "image_id": 1,
        "boxes": [[0, 0, 10, 10]],
        "scores": [0.9],
        "classes": [0],
        "top1_boxes": [[0, 0, 10, 10]],
        "top1_scores": [0.9],
        "top1_classes": [0],
    }
    return ImagePrediction(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 77}, "predictions of image 77: no such image"),
        ({"boxes": [[0, 0, math.nan, 10]]}, "predictions of image 1: .*not finite in boxes"),
        ({"top1_scores": [math.inf]}, "predictions of image 1: .*not finite in top1_boxes"),
        ({"classes": [24]}, r"predictions of image 1: a class outside 0\.\.23"),
        ({"classes": [-1]}, r"predictions of image 1: a class outside 0\.\.23"),
    ],
)
def test_bad_predictions_are_named(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        compute_metrics(scene([0]), [broken(**changes)])
    assert "\n" not in str(caught.value)


def test_shapes_are_checked():
    with pytest.raises(DataError, match=r"predictions of image 1: boxes, scores and classes"):
        broken(scores=[0.9, 0.8])


def test_image_given_twice():
    with pytest.raises(DataError, match="predictions of image 1 are given twice"):
        compute_metrics(scene([0]), [broken(), broken()])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 9}, "annotation 0 is of image 9"),
        ({"category_id": 25}, "annotation 0 has category id 25"),
        ({"iscrowd": 1}, "annotation 0 is a crowd region"),
        ({"bbox": [0, 0, math.nan, 1]}, "annotation 0 has a box that is not finite"),
    ],
)
def test_bad_ground_truth_is_named(changes, message):
    coco = scene([0])
    coco["annotations"][0] |= changes
    with pytest.raises(DataError, match=message):
        compute_metrics(coco, [])
