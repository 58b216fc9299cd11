from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    StandardROIHeads,
)
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from torch import Tensor

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.modeling import DeepACCROIHeads

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
def test_detections_are_detectron2s_and_proposals_are_beside(
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
    assert [len(x) for x in others["proposals"]] == [9, 4]
    for detections, best in zip(found, others["proposals"], strict=True):
        # The highest score of all is some proposal's best, and survives any NMS.
        assert detections.scores[0] == best.probabilities[:, :-1].max()


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
        assert [len(x) for x in others["proposals"]] == list(counts)


def test_baseline_is_detectron2s_own_heads(
    make_roi_heads: Build, make_item: Build, features: dict[str, Tensor]
) -> None:
    """The reference is Detectron2 alone: the same weights give the same losses and detections."""
    heads = make_roi_heads()
    reference = StandardROIHeads(
        num_classes=NUM_CLASSES,
        batch_size_per_image=32,
        positive_fraction=0.5,
        proposal_matcher=Matcher([0.5], [0, 1]),
        box_in_features=["p3", "p4"],
        box_pooler=ROIPooler(5, [1 / 8, 1 / 16], 2, "ROIAlignV2"),
        box_head=FastRCNNConvFCHead(
            ShapeSpec(channels=32, height=5, width=5), conv_dims=[], fc_dims=[24, 24]
        ),
        box_predictor=FastRCNNOutputLayers(
            24,
            box2box_transform=heads.box_predictor.box2box_transform,
            num_classes=NUM_CLASSES,
            smooth_l1_beta=1.0,
        ),
    )
    reference.load_state_dict(heads.state_dict())
    targets = [make_item(seed=s)["instances"] for s in (0, 1)]
    losses, gradients = [], []
    for model in (heads, reference):
        torch.manual_seed(5)  # proposals are sampled at random
        with EventStorage():
            losses.append(model.train()(_images(), features, _proposals(9, 4), targets)[1])
        sum(losses[-1].values()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    with torch.no_grad():
        found, expected = (
            model.eval()(_images(), features, _proposals(9, 4))[0] for model in (heads, reference)
        )
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.pred_classes, b.pred_classes)


@pytest.fixture
def deepacc_heads(make_roi_heads: Build, make_deepacc_predictor: Build) -> DeepACCROIHeads:
    # delta is low enough for an untrained branch to have local centers.
    predictor = make_deepacc_predictor(delta=0.06, test_score_thresh=0.0)
    heads = make_roi_heads(separated=True, predictor=predictor)
    assert isinstance(heads, DeepACCROIHeads)
    return heads


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", [((9, 4), 3), ((0, 5), 3), ((0, 3), 0), ((0, 0), 0), ((0, 0), 2)])
def test_deepacc_training(
    deepacc_heads: DeepACCROIHeads,
    make_item: Build,
    features: dict[str, Tensor],
    case: tuple[tuple[int, int], int],
    dtype: torch.dtype,
) -> None:
    proposals, objects = case
    heads = deepacc_heads.train()
    targets = [make_item(boxes=objects, seed=s)["instances"] for s in (0, 1)]
    with EventStorage(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        _, losses = heads(_images(), features, _proposals(*proposals), targets)
    assert set(losses) == {"loss_margin", "loss_inference", "loss_gia", "loss_box_reg"}
    total = torch.stack(list(losses.values())).sum()
    assert total.dtype == torch.float32
    total.backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name  # DDP waits for every parameter
        assert parameter.grad.isfinite().all(), name
    assert (losses["loss_margin"].item() > 0) == (sum(proposals) + objects > 0)


def test_regions_that_no_unit_answers_to(
    deepacc_heads: DeepACCROIHeads, make_item: Build, features: dict[str, Tensor]
) -> None:
    """Behind the last rectifier such features are all zero, and have no direction."""
    heads = deepacc_heads.train()
    last = heads.box_head.classification.fc2
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-1.0)
    targets = [make_item(seed=s)["instances"] for s in (0, 1)]
    with EventStorage(), torch.autocast("cpu", dtype=torch.float16):
        _, losses = heads(_images(), features, _proposals(9, 4), targets)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_deepacc_finds_in_a_batch_what_it_finds_in_each_image(
    deepacc_heads: DeepACCROIHeads, features: dict[str, Tensor]
) -> None:
    heads = deepacc_heads.eval()
    proposals = _proposals(9, 4)
    with torch.no_grad():
        output = heads.predict(features, proposals)
        found, others = heads(_images(), features, proposals)
        assert output.counts == [9, 4]
        assert (output.centers.source >= 0).any(dim=1).all()
        for i in (0, 1):
            part = {name: maps[i : i + 1] for name, maps in features.items()}
            images = ImageList(torch.zeros(1, 1, 64, 96), [SIZES[i]])
            (alone,), more = heads(images, part, [proposals[i]])
            torch.testing.assert_close(alone.scores, found[i].scores)
            assert torch.equal(alone.pred_classes, found[i].pred_classes)
            torch.testing.assert_close(alone.pred_boxes.tensor, found[i].pred_boxes.tensor)
            own = others["proposals"][i].probabilities
            torch.testing.assert_close(more["proposals"][0].probabilities, own)
        # The scores are the inference branch's.
        scores = output.inference_logits.softmax(dim=1)[:9]
    torch.testing.assert_close(others["proposals"][0].probabilities, scores)
    assert not torch.equal(output.margin_logits, output.inference_logits)


def test_deepacc_testing_without_proposals(
    deepacc_heads: DeepACCROIHeads, features: dict[str, Tensor]
) -> None:
    heads = deepacc_heads.eval()
    for counts in ((0, 5), (5, 0), (0, 0)):
        with torch.no_grad():
            found, others = heads(_images(), features, _proposals(*counts))
        assert [len(x) for x in others["proposals"]] == list(counts)
        assert all(len(x) == 0 for x, n in zip(found, counts, strict=True) if not n)


@pytest.mark.parametrize("counts", [(9, 4), (0, 5), (0, 0)])
def test_pair_centers_get_the_boxes_of_their_proposals(
    make_roi_heads: Build,
    make_deepacc_predictor: Build,
    features: dict[str, Tensor],
    counts: tuple[int, int],
) -> None:
    # Large enough a scale for scores above 0.1, so that there are partners.
    options = {"delta": 0.15, "s": 30.0, "center": "pair", "center_share": 0.5}
    predictor = make_deepacc_predictor(**options)
    heads = make_roi_heads(separated=True, predictor=predictor).eval()
    proposals = _proposals(*counts)
    with torch.no_grad():
        output = heads.predict(features, proposals)
        scores = output.margin_logits.softmax(dim=1).split(counts)
    assert output.centers.partner.shape == (2, NUM_CLASSES + 1)
    assert (output.centers.partner >= 0).any() == (sum(counts) > 0)
    for image, (score, found) in enumerate(zip(scores, proposals, strict=True)):
        boxes = found.proposal_boxes
        for k in range(NUM_CLASSES):
            source = int(output.centers.source[image, k])
            partner = int(output.centers.partner[image, k])
            if source < 0:
                assert partner == -1
                continue
            apart = pairwise_iou(boxes, boxes[source])[:, 0] < 0.5
            left = torch.where(apart, score[:, k], 0.0)
            assert partner == (int(left.argmax()) if left.max() > 0.1 else -1)


def test_training_with_pairs_gives_every_parameter_a_gradient(
    make_roi_heads: Build,
    make_deepacc_predictor: Build,
    make_item: Build,
    features: dict[str, Tensor],
) -> None:
    predictor = make_deepacc_predictor(delta=0.02, center="pair", center_share=0.5)
    heads = make_roi_heads(separated=True, predictor=predictor).train()
    targets = [make_item(boxes=n, seed=n)["instances"] for n in (3, 0)]
    with EventStorage():
        _, losses = heads(_images(), features, _proposals(9, 0), targets)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
