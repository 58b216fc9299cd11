from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.modeling.predictor import pack_proposals

Build = Callable[..., Any]
SIZES = [(60, 90), (50, 40)]


def _proposals(*counts: int) -> list[Instances]:
    result = []
    for count, size in zip(counts, SIZES, strict=False):
        corner = torch.rand(count, 2) * 30
        proposals = Instances(size)
        proposals.proposal_boxes = Boxes(
            torch.cat([corner, corner + 5 + 20 * torch.rand(count, 2)], 1)
        )
        result.append(proposals)
    return result


def _decode(box: list[float], deltas: list[float]) -> list[float]:
    """Girshick et al. 2014, with Faster R-CNN's weights 10, 10, 5, 5, as plain arithmetic."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    dx, dy, dw, dh = (d / w for d, w in zip(deltas, (10, 10, 5, 5), strict=True))
    center = (x0 + 0.5 * width + dx * width, y0 + 0.5 * height + dy * height)
    new = (math.exp(dw) * width, math.exp(dh) * height)
    return [
        center[0] - new[0] / 2,
        center[1] - new[1] / 2,
        center[0] + new[0] / 2,
        center[1] + new[1] / 2,
    ]


def _naive_proposals(
    logits: Tensor, deltas: Tensor, proposals: Instances
) -> list[tuple[list[float], list[float]]]:
    rows = []
    height, width = proposals.image_size
    agnostic = deltas.shape[1] == 4
    for i in range(len(proposals)):
        exponents = [math.exp(float(z)) for z in logits[i]]
        scores = [e / sum(exponents) for e in exponents]
        best = 0
        for j in range(NUM_CLASSES):  # not the background, which is index K
            if scores[j] > scores[best]:
                best = j
        first = 0 if agnostic else 4 * best
        box = _decode(
            proposals.proposal_boxes.tensor[i].tolist(), deltas[i, first : first + 4].tolist()
        )
        limits = (width, height, width, height)
        rows.append(([min(max(v, 0.0), b) for v, b in zip(box, limits, strict=True)], scores))
    return rows


@pytest.mark.parametrize("agnostic", [False, True])
def test_proposals_by_loops(make_predictor: Build, agnostic: bool) -> None:
    predictor = make_predictor(cls_agnostic_bbox_reg=agnostic)
    proposals = _proposals(7, 5)
    logits = torch.randn(12, NUM_CLASSES + 1) * 1.5
    deltas = torch.randn(12, 4 if agnostic else 4 * NUM_CLASSES) * 2
    found = predictor.proposals((logits, deltas), proposals)
    assert [len(result) for result in found] == [7, 5]
    for result, x, part in zip(found, proposals, (slice(0, 7), slice(7, 12)), strict=True):
        expected = _naive_proposals(logits[part], deltas[part], x)
        assert result.image_size == x.image_size
        torch.testing.assert_close(result.probabilities, torch.tensor([p for _, p in expected]))
        boxes = torch.tensor([b for b, _ in expected])
        torch.testing.assert_close(result.pred_boxes.tensor, boxes, atol=1e-4, rtol=1e-5)


def test_a_box_is_never_regressed_for_background(make_predictor: Build) -> None:
    logits = torch.zeros(3, NUM_CLASSES + 1)
    logits[:, NUM_CLASSES] = 2.0
    logits[:, 4] = 1.0
    deltas = torch.zeros(3, 4 * NUM_CLASSES)
    deltas[:, 16:18] = 1.0  # of class 4: a tenth of width and height to the right and down
    proposals = _proposals(3)
    given = proposals[0].proposal_boxes.tensor
    (result,) = make_predictor().proposals((logits, deltas), proposals)
    moved = given + 0.1 * (given[:, 2:] - given[:, :2]).repeat(1, 2)
    torch.testing.assert_close(result.pred_boxes.tensor, moved)


@pytest.mark.parametrize("counts", [(0, 3), (0, 0), (2, 0)])
def test_proposals_of_an_image_without_any(make_predictor: Build, counts: tuple[int, int]) -> None:
    predictor = make_predictor()
    predictions = predictor(torch.randn(sum(counts), 24))
    found = predictor.proposals(predictions, _proposals(*counts))
    assert [len(x) for x in found] == list(counts)
    assert all(x.pred_boxes.tensor.shape == (len(x), 4) for x in found)


def test_shared_and_separated_features(make_predictor: Build) -> None:
    predictor = make_predictor()
    a, b = torch.randn(2, 5, 24)
    logits, deltas = predictor((a, b))
    torch.testing.assert_close(logits, a @ predictor.cls_score.weight.T + predictor.cls_score.bias)
    torch.testing.assert_close(deltas, b @ predictor.bbox_pred.weight.T + predictor.bbox_pred.bias)
    assert logits.shape == (5, NUM_CLASSES + 1)
    assert deltas.shape == (5, 4 * NUM_CLASSES)
    for one, both in zip(predictor(a), predictor((a, a)), strict=True):
        torch.testing.assert_close(one, both)
    torch.testing.assert_close(predictor(a[:, :, None, None])[0], predictor(a)[0])


def test_predictions_are_float32_under_autocast(make_predictor: Build) -> None:
    predictor = make_predictor()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, deltas = predictor(torch.randn(2, 24))
        assert predictor.cls_score(torch.randn(2, 24)).dtype == torch.bfloat16
    assert logits.dtype == deltas.dtype == torch.float32


def test_no_regions_still_back_propagate(make_predictor: Build) -> None:
    predictor = make_predictor()
    proposals = _proposals(0, 0)
    for x, size in zip(proposals, SIZES, strict=True):
        x.gt_classes = torch.zeros(0, dtype=torch.int64)
        x.gt_boxes = Boxes(torch.zeros(0, 4))
        assert x.image_size == size
    with EventStorage():
        losses = predictor.losses(predictor(torch.zeros(0, 24, requires_grad=True)), proposals)
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    for parameter in predictor.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_losses_by_loops(make_predictor: Build) -> None:
    predictor = make_predictor()
    (proposals,) = _proposals(6)
    proposals.gt_classes = torch.tensor([3, NUM_CLASSES, 0, 23, NUM_CLASSES, 3])
    wanted = torch.randn(6, 4) * 0.5  # encoded offsets of the ground truth
    boxes = proposals.proposal_boxes.tensor.tolist()
    proposals.gt_boxes = Boxes(
        torch.tensor([_decode(b, d) for b, d in zip(boxes, wanted.tolist(), strict=True)])
    )
    logits, deltas = torch.randn(6, NUM_CLASSES + 1), torch.randn(6, 4 * NUM_CLASSES) * 2
    with EventStorage():
        losses = predictor.losses((logits, deltas), [proposals])
    classification = box = 0.0
    for i, label in enumerate(proposals.gt_classes.tolist()):
        classification -= math.log(math.exp(logits[i, label]) / float(logits[i].exp().sum()))
        if label < NUM_CLASSES:
            for j in range(4):
                error = abs(float(deltas[i, 4 * label + j]) - float(wanted[i, j]))
                box += 0.5 * error**2 if error < 1 else error - 0.5
    assert float(losses["loss_cls"]) == pytest.approx(classification / 6, rel=1e-4)
    assert float(losses["loss_box_reg"]) == pytest.approx(box / 6, rel=1e-3)


def test_packing_clips_and_empties_what_is_not_finite() -> None:
    boxes = torch.tensor([[-5.0, 2, 200, 30], [1, 2, 3, 4], [1, 2, float("nan"), 4]])
    probabilities = torch.rand(3, NUM_CLASSES + 1)
    result = pack_proposals(boxes, probabilities, (20, 100))
    assert result.image_size == (20, 100)
    assert result.pred_boxes.tensor.tolist() == [[0, 2, 100, 20], [1, 2, 3, 4], [0, 0, 0, 0]]
    assert result.probabilities is probabilities
