from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.detection.select import SelectionSettings, select
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
