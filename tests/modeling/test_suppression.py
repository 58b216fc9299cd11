"""Suppression that spares crossing chromosomes, against a loop over pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from deepacc_d2.errors import ConfigError
from deepacc_d2.method import check_shares
from deepacc_d2.modeling.suppression import suppress

SETTINGS = {"iou": 0.5, "crossing_iou": 0.8, "crossing_score": 0.7}


def overlap(a: Tensor, b: Tensor) -> float:
    sides = [float(min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    shared = max(sides[0], 0) * max(sides[1], 0)
    area = [float((c[2] - c[0]) * (c[3] - c[1])) for c in (a, b)]
    return shared / (area[0] + area[1] - shared)


def greedy(boxes: Tensor, order: list[int], kept: list[int], iou: float) -> list[int]:
    """Takes boxes in order, each unless one that was taken before overlaps it by more."""
    taken = list(kept)
    for n in order:
        if all(overlap(boxes[n], boxes[m]) <= iou for m in taken):
            taken.append(n)
    return taken[len(kept) :]


def naive(boxes: Tensor, scores: Tensor, classes: Tensor) -> list[int]:
    order = scores.argsort(descending=True).tolist()
    sure = [n for n in order if scores[n] >= SETTINGS["crossing_score"]]
    of_class = [
        greedy(boxes, [n for n in sure if classes[n] == c], [], SETTINGS["iou"]) for c in range(4)
    ]
    candidates = [n for n in sure if any(n in rows for rows in of_class)]
    kept = greedy(boxes, candidates, [], SETTINGS["crossing_iou"])
    doubtful = [n for n in order if n not in sure]
    return kept + greedy(boxes, doubtful, kept, SETTINGS["iou"])


def draw(rng: np.random.Generator, number: int) -> tuple[Tensor, Tensor, Tensor]:
    corners = rng.uniform(0, 40, (number, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 20, (number, 2))], axis=1)
    scores = rng.permutation(np.linspace(0.05, 0.99, number))  # no ties
    return (
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(scores, dtype=torch.float32),
        torch.tensor(rng.integers(0, 4, number)),
    )


def test_it_is_what_loops_give() -> None:
    spared = 0
    for seed in range(100):
        boxes, scores, classes = draw(np.random.default_rng(seed), 30)
        found = suppress(boxes, scores, classes, **SETTINGS).tolist()
        assert found == naive(boxes, scores, classes)
        assert found == sorted(found, key=lambda n: -scores[n])
        spared += len(set(found) - set(nms(boxes, scores, SETTINGS["iou"]).tolist()))
    assert spared > 20, "the boxes drawn try nothing"


def box(x: float) -> list[float]:
    return [x, 0.0, x + 10.0, 10.0]


@pytest.mark.parametrize(
    ("shift", "classes", "scores", "kept"),
    [
        (2.0, [3, 7], [0.9, 0.8], [0, 1]),  # IoU 0.67, both sure, of two classes
        (2.0, [3, 3], [0.9, 0.8], [0]),  # of one class
        (2.0, [3, 7], [0.9, 0.69], [0]),  # one in doubt
        (1.0, [3, 7], [0.9, 0.8], [0]),  # IoU 0.82
        (5.0, [3, 3], [0.9, 0.2], [0, 1]),  # IoU 0.33: never the same
    ],
)
def test_two_boxes(shift: float, classes: list[int], scores: list[float], kept: list[int]) -> None:
    boxes = torch.tensor([box(0), box(shift)])
    found = suppress(boxes, torch.tensor(scores), torch.tensor(classes), **SETTINGS)
    assert found.tolist() == kept


def test_a_doubtful_box_goes_for_a_spared_one() -> None:
    # 0 and 1 cross; 2 lies on 1 alone, and would stay had 1 not been spared.
    boxes = torch.tensor([box(0), box(3), box(5)])
    found = suppress(boxes, torch.tensor([0.9, 0.8, 0.4]), torch.tensor([1, 2, 5]), **SETTINGS)
    assert found.tolist() == [0, 1]


def test_without_an_allowance_it_is_plain_nms() -> None:
    boxes, scores, classes = draw(np.random.default_rng(1), 60)
    found = suppress(boxes, scores, classes, iou=0.5)
    assert found.tolist() == nms(boxes, scores, 0.5).tolist()


@pytest.mark.parametrize("number", [0, 1])
def test_few_boxes(number: int) -> None:
    boxes, scores, classes = draw(np.random.default_rng(1), 1)
    some = (boxes[:number], scores[:number], classes[:number])
    assert suppress(*some, **SETTINGS).tolist() == list(range(number))


def test_thresholds_are_shares() -> None:
    with pytest.raises(ConfigError, match=r"crossing_iou=1\.5 is no share"):
        check_shares(crossing_iou=1.5, crossing_score=0.7)
