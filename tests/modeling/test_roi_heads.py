from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

Build = Callable[..., Any]
SIZES = [(64, 96), (64, 96)]


@pytest.fixture
def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "p3": torch.randn(2, 32, 8, 12, generator=generator),
        "p4": torch.randn(2, 32, 4, 6, generator=generator),
    }


def _images() -> ImageList:
    return ImageList(torch.zeros(2, 1, 64, 96), SIZES)


def _proposals(*counts: int) -> list[Instances]:
    generator = torch.Generator().manual_seed(2)
    result = []
    for count, size in zip(counts, SIZES, strict=True):
        corner = torch.rand(count, 2, generator=generator) * 40
        side = 10 + 20 * torch.rand(count, 2, generator=generator)
        proposals = Instances(size)
        proposals.proposal_boxes = Boxes(torch.cat([corner, corner + side], dim=1))
        proposals.objectness_logits = torch.zeros(count)
        result.append(proposals)
    return result


@pytest.mark.parametrize("separated", [False, True])
def test_detections_are_detectron2s_and_top1_is_beside(
    make_roi_heads: Build, features: dict[str, Tensor], separated: bool
) -> None:
    heads = make_roi_heads(separated=separated).eval()
    with torch.no_grad():
        found, others = heads(_images(), features, _proposals(9, 4))
        expected, _ = StandardROIHeads.forward(heads, _images(), features, _proposals(9, 4))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor)
        torch.testing.assert_close(a.scores, b.scores)
        assert a.pred_classes.tolist() == b.pred_classes.tolist()
    assert [len(x) for x in others["top1"]] == [9, 4]
    for detections, best in zip(found, others["top1"], strict=True):
        # The highest score of all is some proposal's best, and survives any NMS.
        assert detections.scores[0] == best.scores.max()


def test_losses_are_detectron2s(
    make_roi_heads: Build, make_item: Build, features: dict[str, Tensor]
) -> None:
    heads = make_roi_heads().train()
    targets = [make_item(seed=s)["instances"] for s in (0, 1)]
    losses = []
    for forward in (type(heads).forward, StandardROIHeads.forward):
        torch.manual_seed(5)  # proposals are sampled at random
        with EventStorage():
            losses.append(forward(heads, _images(), features, _proposals(9, 4), targets)[1])
    assert set(losses[0]) == {"loss_cls", "loss_box_reg"}
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name])


@pytest.mark.parametrize("case", [((0, 0), 0), ((0, 3), 0), ((0, 0), 2)])
def test_training_without_proposals_or_objects(
    make_roi_heads: Build,
    make_item: Build,
    features: dict[str, Tensor],
    case: tuple[tuple[int, int], int],
) -> None:
    proposals, objects = case
    heads = make_roi_heads(separated=True).train()
    targets = [make_item(boxes=objects, seed=s)["instances"] for s in (0, 1)]
    with EventStorage():
        _, losses = heads(_images(), features, _proposals(*proposals), targets)
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name  # DDP waits for every parameter
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("training", [False, True])
def test_regions_are_pooled_at_exact_boxes_under_autocast(
    make_roi_heads: Build, training: bool
) -> None:
    heads = make_roi_heads().train(training)
    generator = torch.Generator().manual_seed(3)
    features = {
        "p3": torch.randn(1, 32, 64, 64, generator=generator).bfloat16(),
        "p4": torch.randn(1, 32, 32, 32, generator=generator),  # levels may differ in type
    }
    proposals = Instances((512, 512))
    proposals.proposal_boxes = Boxes(torch.tensor([[300.9, 401.1, 330.3, 444.7]]))
    proposals.objectness_logits = torch.zeros(1)
    targets = Instances((512, 512))
    targets.gt_boxes, targets.gt_classes = Boxes(torch.zeros(0, 4)), torch.zeros(0).long()
    pooled: list[Tensor] = []
    heads.box_head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    images = ImageList(torch.zeros(1, 1, 512, 512), [(512, 512)])
    with torch.autocast("cpu", dtype=torch.bfloat16), EventStorage():
        heads(images, features, [proposals], [targets] if training else None)
    exact = heads.box_pooler([x.float() for x in features.values()], [proposals.proposal_boxes])
    torch.testing.assert_close(pooled[0], exact)


def test_testing_without_proposals(make_roi_heads: Build, features: dict[str, Tensor]) -> None:
    heads = make_roi_heads().eval()
    for counts in ((0, 5), (0, 0)):
        with torch.no_grad():
            found, others = heads(_images(), features, _proposals(*counts))
        assert len(found[0]) == 0
        assert [len(x) for x in others["top1"]] == list(counts)
