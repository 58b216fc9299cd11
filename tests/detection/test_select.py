from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.detection.select import SelectionSettings, decode, select
from deepacc_d2.errors import ConfigError


def row(**scores: float) -> list[float]:
    """Probabilities with some given, by class index, and the rest for no chromosome."""
    values = [0.0] * 25
    for name, score in scores.items():
        values[int(name[1:])] = score
    values[24] = 1 - sum(scores.values())
    return values


def test_a_chromosome_of_doubtful_class_is_kept() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10], [90, 0, 99, 9]], dtype=np.float32)
    probabilities = np.array([row(c6=0.3, c22=0.35), row(c1=0.45), row(c2=0.99)], dtype=np.float32)
    half = SelectionSettings(min_foreground=0.5)
    assert select(boxes, probabilities, half).tolist() == [2, 0]
    lower = SelectionSettings(min_foreground=0.4)
    assert select(boxes, probabilities, lower).tolist() == [2, 1, 0]


def test_of_boxes_on_one_chromosome_the_surest_stays() -> None:
    # IoU of the first two: 8/12; of the first and third: 5/15.
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [5, 0, 15, 10]], dtype=np.float32)
    probabilities = np.array([row(c0=0.65), row(c5=0.9), row(c0=0.6)], dtype=np.float32)
    assert select(boxes, probabilities, SelectionSettings(iou=0.6)).tolist() == [1, 2]
    assert select(boxes, probabilities, SelectionSettings(iou=0.7)).tolist() == [1, 0, 2]
    assert select(boxes, probabilities, SelectionSettings(iou=0.3)).tolist() == [1]
    one = SelectionSettings(iou=0.7, max_chromosomes=1)
    assert select(boxes, probabilities, one).tolist() == [1]


def test_crossing_chromosomes_keep_their_boxes() -> None:
    # IoU 8/12, both surely something, and not the same.
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], dtype=np.float32)
    probabilities = np.array([row(c0=0.8), row(c5=0.9)], dtype=np.float32)
    assert select(boxes, probabilities, SelectionSettings()).tolist() == [1, 0]
    plain = SelectionSettings(crossing_iou=0)
    assert select(boxes, probabilities, plain).tolist() == [1]
    with pytest.raises(ConfigError, match=r"crossing_score=2 is no share"):
        SelectionSettings(crossing_score=2)


def test_impossible_boxes_are_no_chromosomes() -> None:
    boxes = np.array(
        [[0, 0, 0, 10], [np.nan, 0, 5, 5], [9, 9, 5, 5], [0, 0, np.inf, 4], [1, 1, 4, 4]],
        dtype=np.float32,
    )
    probabilities = np.array([row(c3=0.9)] * 5, dtype=np.float32)
    assert select(boxes, probabilities, SelectionSettings()).tolist() == [4]


def test_nothing() -> None:
    empty = np.zeros((0, 4), dtype=np.float32), np.zeros((0, 25), dtype=np.float32)
    assert select(*empty, SelectionSettings()).shape == (0,)


@pytest.mark.parametrize(
    "options", [{"min_foreground": 1.2}, {"iou": -0.1}, {"max_chromosomes": 0}]
)
def test_bad_settings(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        SelectionSettings(**options)  # type: ignore[arg-type]


def naive_nms(
    rows: list[int], boxes: np.ndarray, scores: dict[int, float], iou: float
) -> list[int]:
    """Keeps, by descending score, what no kept box overlaps by more."""
    kept: list[int] = []
    for row in sorted(rows, key=lambda n: -scores[n]):
        for other in kept:
            low = np.maximum(boxes[row, :2], boxes[other, :2])
            high = np.minimum(boxes[row, 2:], boxes[other, 2:])
            shared = np.prod(np.maximum(high - low, 0))
            areas = sum(np.prod(boxes[n, 2:] - boxes[n, :2]) for n in (row, other))
            if shared / (areas - shared) > iou:
                break
        else:
            kept.append(row)
    return kept


def test_all_forms_come_from_the_same_proposals() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 30, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 20, (40, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    boxes[3, 2:] = boxes[3, :2]  # of no area
    boxes[4, 0] = np.nan
    logits = rng.normal(size=(40, 25)) * 3
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    settings = SelectionSettings(min_foreground=0.5, iou=0.3, crossing_iou=0)
    found = decode(9, boxes, probabilities, settings, placed=boxes * 2 + 1)
    assert found.image_id == 9

    usable = [n for n in range(40) if n not in (3, 4)]
    expected = []
    for k in range(24):
        scores = {n: float(probabilities[n, k]) for n in range(40)}
        rows = [n for n in usable if scores[n] > 0.05]
        expected += [(scores[n], k, n) for n in naive_nms(rows, boxes, scores, 0.5)]
    expected = sorted(expected, reverse=True)[:100]
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-6)
    assert found.classes.tolist() == [k for _, k, _ in expected]
    np.testing.assert_allclose(found.boxes, [boxes[n] * 2 + 1 for _, _, n in expected], rtol=1e-6)

    best = probabilities[:, :24].max(axis=1)
    top = [n for n in usable if best[n] > 0.05]
    np.testing.assert_allclose(found.top1_scores, best[top])
    assert found.top1_classes.tolist() == probabilities[top, :24].argmax(axis=1).tolist()

    rows = [n for n in usable if 1 - probabilities[n, 24] >= 0.5]
    kept = naive_nms(rows, boxes, dict(enumerate(best.tolist())), 0.3)
    assert found.kept_classes is not None
    assert found.kept_classes.tolist() == probabilities[kept, :24].argmax(axis=1).tolist()
    np.testing.assert_allclose(found.kept_boxes, boxes[kept] * 2 + 1, rtol=1e-6)


def test_nothing_gives_empty_forms() -> None:
    empty = np.zeros((0, 4), dtype=np.float32), np.zeros((0, 25), dtype=np.float32)
    found = decode(1, *empty, SelectionSettings())
    assert found.kept_boxes is not None
    assert len(found.boxes) == len(found.top1_boxes) == len(found.kept_boxes) == 0
