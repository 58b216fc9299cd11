from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES, GROUP_OF
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.explain import center_quality as module
from deepacc_d2.evaluation.explain.center_quality import (
    OUTCOMES,
    center_candidates,
    center_quality,
    format_center_quality,
    judge_candidates,
    measure_center_quality,
    partner_candidates,
)

K = 24
Case = tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def outcome_of(k: int, box: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> str:
    found = sorted(
        ((iou(box, b), CLASSES[c]) for b, c in zip(boxes, classes, strict=True)), reverse=True
    )
    near = [name for value, name in found if value >= 0.5]
    if CLASSES[k] in near:
        return "right"
    if not near:
        return "nothing"
    return "same_group" if GROUP_OF[near[0]] == GROUP_OF[CLASSES[k]] else "other_group"


@pytest.fixture
def case() -> Case:
    rng = np.random.default_rng(4)
    scores = rng.uniform(size=(12, K)) ** 0.5
    truth, boxes = [], np.zeros((12, K, 4))
    for i in range(12):
        num = 0 if i == 5 else int(rng.integers(4, 40))
        corner = rng.uniform(0, 90, (num, 2))
        gt = np.concatenate([corner, corner + rng.uniform(10, 30, (num, 2))], axis=1)
        classes = rng.integers(0, K, num)
        truth.append((gt, classes))
        for k in range(K):
            own = np.flatnonzero(classes == k)
            pool = own if len(own) and rng.uniform() < 0.6 else np.arange(num)
            start = gt[rng.choice(pool)] if len(pool) else np.array([0.0, 0, 20, 20])
            boxes[i, k] = start + rng.normal(0, 3, 4)
            boxes[i, k, 2:] = np.maximum(boxes[i, k, 2:], boxes[i, k, :2] + 1)
    return scores, boxes, truth


def test_counts_are_those_of_loops_over_deltas_images_and_classes(case: Case) -> None:
    scores, boxes, truth = case
    deltas = (0.0, 0.4, 0.8, 1.0)
    found = center_quality(scores, boxes, truth, deltas)
    seen = set()
    for d, delta in enumerate(deltas):
        for k in range(K):
            counts = dict.fromkeys(OUTCOMES, 0)
            local = held = local_and_held = 0
            for i in range(12):
                holds = k in truth[i][1].tolist()
                held += holds
                if scores[i, k] > delta:
                    local += 1
                    local_and_held += holds
                    counts[outcome_of(k, boxes[i, k], *truth[i])] += 1
            seen |= {name for name, n in counts.items() if n}
            assert found.outcomes[d, k].tolist() == list(counts.values())
            assert found.absent[d, k] == local - local_and_held
            assert found.present[k] == held
            assert found.coverage[d, k] == pytest.approx(local / 12)
            expected = local_and_held / held if held else np.nan
            assert found.coverage_present[d, k] == pytest.approx(expected, nan_ok=True)
            expected = counts["right"] / local if local else np.nan
            assert found.precision[d, k] == pytest.approx(expected, nan_ok=True)
    assert seen == set(OUTCOMES), "the case is to hold every outcome"
    assert found.outcomes[-1].sum() == 0, "a score of 1 does not exceed 1"


def test_a_touching_chromosome_of_the_right_class_counts_though_another_overlaps_more() -> None:
    boxes = np.tile([0.0, 0.0, 10.0, 10.0], (K, 1))
    gt = np.array([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4]])
    judged = judge_candidates(boxes, (gt, np.array([0, 1, 5])))
    names = [OUTCOMES[j] for j in judged]
    assert names[:3] == ["right", "right", "same_group"]
    assert names[5] == "other_group"  # class 6 overlaps by 0.4 only, class 1 wholly


def heads_of(margin: np.ndarray | None, boxes: np.ndarray) -> Any:
    return SimpleNamespace(margin=margin, proposal_boxes=boxes)


def test_candidates_are_the_best_proposals_of_each_class() -> None:
    margin = np.zeros((3, K + 1))
    margin[:, 2] = [0.2, 0.7, 0.1]
    margin[:, 5] = [0.0, 0.1, 0.3]
    boxes = np.arange(12.0).reshape(3, 4)
    scores, found = center_candidates(heads_of(margin, boxes))
    assert (scores[2], scores[5], scores[0]) == (0.7, 0.3, 0.0)
    assert found[[2, 5]].tolist() == boxes[[1, 2]].tolist()
    scores, found = center_candidates(heads_of(margin[:0], boxes[:0]))
    assert scores.tolist() == [0.0] * K
    assert found.shape == (K, 4)
    with pytest.raises(ConfigError, match="no margin branch"):
        center_candidates(heads_of(None, boxes))


def test_measuring_a_model_joins_images_with_their_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images come in an order of their own; the truth goes by image id, in XYWH."""
    margin = np.zeros((1, K + 1))
    margin[0, 3] = 0.9
    box = np.array([[10.0, 10, 30, 50]])
    monkeypatch.setattr(module, "read_heads", lambda _, batch: [heads_of(margin, box)] * len(batch))
    coco = {
        "images": [{"id": 1}, {"id": 2}, {"id": 3}],
        "annotations": [
            {"id": 1, "image_id": 2, "category_id": 4, "bbox": [10, 10, 20, 40]},
            {"id": 2, "image_id": 1, "category_id": 6, "bbox": [10, 10, 20, 40]},
            {"id": 3, "image_id": 1, "category_id": 4, "bbox": [90, 10, 20, 40]},
        ],
    }
    batches = [[{"image_id": 2}], [{"image_id": 3}, {"image_id": 1}]]
    found = measure_center_quality(None, batches, coco, [0.5])
    assert found.outcomes[0, 3].tolist() == [1, 0, 1, 1]
    assert (found.num_images, found.present[3], found.present[5]) == (3, 2, 1)
    assert found.absent[0, 3] == 1
    assert found.pairs.sum() == 0, "each image has one proposal"
    with pytest.raises(DataError, match="image 9 is not in the ground truth"):
        measure_center_quality(None, [[{"image_id": 9}]], coco)


def test_table_gives_percents_and_a_dash_where_nothing_is_counted() -> None:
    scores = np.zeros((2, K))
    scores[:, 0] = [0.9, 0.6]
    boxes = np.tile([0.0, 0.0, 10.0, 10.0], (2, K, 1))
    truth = [
        (np.array([[0.0, 0, 10, 10]]), np.array([0])),
        (np.array([[0.0, 0, 10, 10]]), np.array([1])),
    ]
    text = format_center_quality(center_quality(scores, boxes, truth, [0.5, 0.8]))
    lines = [line.split() for line in text.splitlines()]
    # One of the two chromosomes' classes, 1, has a local center; the other, 2, has none.
    assert ["0.5", "50.0", "50.0", "50.0", "0.0", "0.0", "2", "1", "0.0", "-"] in lines
    assert ["0.8", "50.0", "100.0", "0.0", "0.0", "0.0", "1", "0", "0.0", "-"] in lines
    assert ["A", "1", "100.0", "50.0", "50.0", "0.0", "0.0", "2", "1", "0.0", "-"] in lines
    assert ["A", "2", "0.0", "-", "-", "-", "-", "0", "0", "-", "-"] in lines
    assert ["G", "Y", "-", "-", "-", "-", "-", "0", "0", "-", "-"] in lines


def test_partners_are_the_best_proposals_apart_from_the_candidates() -> None:
    boxes = np.array([[0.0, 0, 10, 20], [1, 0, 11, 20], [50, 0, 60, 20], [90, 0, 99, 20]])
    margin = np.zeros((4, K + 1))
    margin[:, 0] = [0.9, 0.8, 0.05, 0.3]  # the second shows the first's chromosome
    margin[:2, 1] = [0.7, 0.6]  # nothing elsewhere
    scores, found = partner_candidates(heads_of(margin, boxes))
    assert scores[:3].tolist() == [0.3, 0.0, 0.0]
    assert found[0].tolist() == boxes[3].tolist()
    scores, found = partner_candidates(heads_of(margin[:0], boxes[:0]))
    assert scores.tolist() == [0.0] * K
    assert found.shape == (K, 4)


def test_partners_are_counted_by_loops(case: Case) -> None:
    scores, boxes, truth = case
    rng = np.random.default_rng(9)
    seconds = rng.uniform(0, 0.3, scores.shape)
    places = np.roll(boxes, 1, axis=0)
    deltas = (0.0, 0.4, 0.8, 1.0)
    found = center_quality(scores, boxes, truth, deltas, partners=(seconds, places))
    rights = 0
    for d, delta in enumerate(deltas):
        for k in range(K):
            pairs = right = centers = 0
            for i in range(12):
                centers += scores[i, k] > delta
                if scores[i, k] > delta and seconds[i, k] > 0.1:
                    pairs += 1
                    right += outcome_of(k, places[i, k], *truth[i]) == "right"
            assert (found.pairs[d, k], found.right_partners[d, k]) == (pairs, right)
            expected = pairs / centers if centers else np.nan
            assert found.paired[d, k] == pytest.approx(expected, nan_ok=True)
            expected = right / pairs if pairs else np.nan
            assert found.partner_precision[d, k] == pytest.approx(expected, nan_ok=True)
            rights += right
    assert 0 < rights < found.pairs.sum()
    plain = center_quality(scores, boxes, truth, deltas)
    assert plain.pairs.sum() == plain.right_partners.sum() == 0
    assert (plain.outcomes == found.outcomes).all()
    row = format_center_quality(found).splitlines()[4].split()
    pairs, right = found.pairs[0].sum(), found.right_partners[0].sum()
    assert row[0] == "0"
    assert row[-2:] == [f"{100 * pairs / found.centers[0].sum():.1f}", f"{100 * right / pairs:.1f}"]


def test_no_images_at_all() -> None:
    found = center_quality(np.zeros((0, K)), np.zeros((0, K, 4)), [])
    assert found.centers.sum() == 0
    assert np.isnan(found.coverage).all()
    assert "local centers in 0 images" in format_center_quality(found)
