from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, build_box_head
from torch import Tensor, nn

from deepacc_d2.modeling import SeparatedBoxHead

POOLED = ShapeSpec(channels=6, height=3, width=3)


@pytest.fixture
def head() -> SeparatedBoxHead:
    torch.manual_seed(0)
    return SeparatedBoxHead(POOLED, fc_dims=[10, 8])


def test_each_stream_is_two_rectified_layers(head: SeparatedBoxHead) -> None:
    x = torch.randn(5, 6, 3, 3)
    for stream, found in zip((head.classification, head.regression), head(x), strict=True):
        expected = x.flatten(1)
        for layer in (stream.fc1, stream.fc2):
            expected = (expected @ layer.weight.T + layer.bias).clamp(min=0)
        torch.testing.assert_close(found, expected)
        assert found.shape == (5, 8)


def test_output_shape(head: SeparatedBoxHead) -> None:
    assert head.output_shape.channels == 8


def test_streams_share_nothing(head: SeparatedBoxHead) -> None:
    classification = {p.data_ptr() for p in head.classification.parameters()}
    regression = {p.data_ptr() for p in head.regression.parameters()}
    assert not classification & regression
    assert len(list(head.parameters())) == 8
    a, b = head(torch.randn(2, 6, 3, 3))
    assert not torch.equal(a, b)


def test_gradient_of_a_stream_stays_in_it(head: SeparatedBoxHead) -> None:
    x = torch.randn(4, 6, 3, 3, requires_grad=True)
    for own, other, chosen in (
        (head.classification, head.regression, 0),
        (head.regression, head.classification, 1),
    ):
        head.zero_grad()
        x.grad = None
        head(x)[chosen].square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.parameters())
        assert all(p.grad is None or not p.grad.any() for p in other.parameters())
        assert x.grad is not None  # the trunk learns from both


def test_no_regions(head: SeparatedBoxHead) -> None:
    outputs: tuple[Tensor, Tensor] = head(torch.zeros(0, 6, 3, 3))
    assert [tuple(x.shape) for x in outputs] == [(0, 8), (0, 8)]
    sum(x.sum() for x in outputs).backward()  # type: ignore[union-attr]


def test_convolutions_before_the_layers() -> None:
    head = SeparatedBoxHead(POOLED, fc_dims=[10], conv_dims=[4, 5], conv_norm="")
    assert head.classification.conv2.out_channels == 5
    assert head(torch.randn(2, 6, 3, 3))[1].shape == (2, 10)


def test_from_a_detectron2_config_as_its_own_head() -> None:
    cfg = get_cfg()
    cfg.MODEL.ROI_BOX_HEAD.NAME = "SeparatedBoxHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_CONV, cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = 1, 7
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 2, 12
    head = build_box_head(cfg, POOLED)
    reference = FastRCNNConvFCHead(cfg, POOLED)
    expected = {name: p.shape for name, p in reference.named_parameters()}
    assert isinstance(head, SeparatedBoxHead)
    for stream in (head.classification, head.regression):
        assert {name: p.shape for name, p in stream.named_parameters()} == expected


def test_a_shared_heads_weights_go_to_both_streams(head: SeparatedBoxHead) -> None:
    shared = FastRCNNConvFCHead(POOLED, conv_dims=[], fc_dims=[10, 8])
    weights = shared.state_dict()
    head.load_state_dict(weights)
    x = torch.randn(5, 6, 3, 3)
    for found in head(x):
        torch.testing.assert_close(found, shared(x))
    assert set(weights) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}


@pytest.mark.parametrize("assign", [False, True])
def test_streams_part_again_after_loading_shared_weights(
    head: SeparatedBoxHead, assign: bool
) -> None:
    shared = FastRCNNConvFCHead(POOLED, conv_dims=[], fc_dims=[10, 8])
    expected = shared.fc1.weight.detach().clone()
    head.load_state_dict(shared.state_dict(), assign=assign)
    with torch.no_grad():
        head.classification.fc1.weight.zero_()
    assert torch.equal(head.regression.fc1.weight, expected)


def test_shared_weights_of_another_shape_are_reported(head: SeparatedBoxHead) -> None:
    before = {name: value.clone() for name, value in head.state_dict().items()}
    weights = FastRCNNConvFCHead(POOLED, conv_dims=[], fc_dims=[10, 9]).state_dict()
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"fc2\.weight", "fc2\.bias"'):
        head.load_state_dict(weights)
    incompatible = head.load_state_dict(weights, strict=False)
    assert incompatible.unexpected_keys == ["fc2.weight", "fc2.bias"]
    missing = {f"{s}.fc2.{n}" for s in ("classification", "regression") for n in ("weight", "bias")}
    assert set(incompatible.missing_keys) == missing
    for name, value in head.state_dict().items():
        if ".fc1." in name:
            assert torch.equal(value, weights[name.partition(".")[2]]), name
        else:
            assert torch.equal(value, before[name]), name


def test_own_weights_come_before_shared_ones(head: SeparatedBoxHead) -> None:
    own = {name: value + 1.0 for name, value in head.state_dict().items()}
    head.load_state_dict(own)
    mixed = {**own, "fc1.weight": torch.zeros(10, 54)}
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"fc1\.weight"'):
        head.load_state_dict(mixed)
    assert head.load_state_dict(mixed, strict=False).unexpected_keys == ["fc1.weight"]
    for name, value in head.state_dict().items():
        assert torch.equal(value, own[name]), name


def test_a_missing_weight_of_its_own_is_still_missed(head: SeparatedBoxHead) -> None:
    own = head.state_dict()
    del own["regression.fc2.bias"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"regression\.fc2\.bias"'):
        head.load_state_dict(own)


def test_detectron2s_checkpointer_gives_shared_weights_to_both(
    head: SeparatedBoxHead, tmp_path: Path
) -> None:
    shared = FastRCNNConvFCHead(POOLED, conv_dims=[], fc_dims=[10, 8])
    weights = {f"roi_heads.box_head.{name}": v for name, v in shared.state_dict().items()}
    torch.save({"model": weights}, tmp_path / "zoo.pth")
    model = nn.ModuleDict({"roi_heads": nn.ModuleDict({"box_head": copy.deepcopy(head)})})
    DetectionCheckpointer(model).load(str(tmp_path / "zoo.pth"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, shared.state_dict()[name.split(".", 3)[3]]), name


@pytest.mark.parametrize("separated", [False, True])
def test_gradients_of_the_two_losses(
    make_roi_heads: Callable[..., Any], make_item: Callable[..., Any], separated: bool
) -> None:
    """In a separated head, neither loss reaches the other's stream; in a shared one both do."""
    from detectron2.structures import Boxes, ImageList, Instances
    from detectron2.utils.events import EventStorage

    heads = make_roi_heads(separated=separated).train()
    features = {"p3": torch.randn(1, 32, 8, 12), "p4": torch.randn(1, 32, 4, 6)}
    for value in features.values():
        value.requires_grad_()
    targets = make_item()["instances"]
    proposals = Instances((64, 96))
    proposals.proposal_boxes = Boxes(targets.gt_boxes.tensor + 1.0)
    proposals.objectness_logits = torch.zeros(len(targets))
    images = ImageList(torch.zeros(1, 1, 64, 96), [(64, 96)])
    with EventStorage():
        _, losses = heads(images, features, [proposals], [targets])

    def reached(loss: str) -> set[str]:
        names, parameters = zip(*heads.named_parameters(), strict=True)
        grads = torch.autograd.grad(losses[loss], parameters, retain_graph=True, allow_unused=True)
        return {n for n, g in zip(names, grads, strict=True) if g is not None and g.any()}

    by_class, by_box = reached("loss_cls"), reached("loss_box_reg")
    shared = by_class & by_box
    if separated:
        assert not shared
        assert {n for n in by_class if "box_head" in n} == {
            f"box_head.classification.{n}"
            for n, _ in heads.box_head.classification.named_parameters()
        }
        assert {n for n in by_box if "box_head" in n} == {
            f"box_head.regression.{n}" for n, _ in heads.box_head.regression.named_parameters()
        }
    else:
        assert shared == {f"box_head.{n}" for n, _ in heads.box_head.named_parameters()}
    for loss in losses.values():
        grads = torch.autograd.grad(loss, list(features.values()), retain_graph=True)
        assert any(g.any() for g in grads)
