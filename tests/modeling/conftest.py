"""Detectors small enough to build and run in a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.structures import Boxes, Instances
from torch import nn

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.losses import GroupInnerAdjacencyLoss
from deepacc_d2.modeling import (
    AngularMarginBranch,
    BoxPredictor,
    ChromosomeRCNN,
    ChromosomeRetinaNet,
    ChromosomeROIHeads,
    ChromosomeRPN,
    DeepACCPredictor,
    DeepACCROIHeads,
    LinearBranch,
    SeparatedBoxHead,
    SiameseInferenceBranch,
    build_resnet,
    build_resnet_fpn,
)

CHANNELS = 32
LEVELS = ["p3", "p4"]
STRIDES = [8, 16]
ANCHORS = {"sizes": [[16, 24], [32, 48]], "aspect_ratios": [[0.5, 1.0, 2.0]], "strides": STRIDES}

Build = Callable[..., Any]


def _backbone(in_channels: int) -> nn.Module:
    bottom_up = build_resnet(
        depth=18,
        in_channels=in_channels,
        stem_channels=16,
        res2_channels=16,
        out_features=("res3", "res4"),
        norm="BN",
        freeze_at=0,
    )
    return build_resnet_fpn(bottom_up=bottom_up, out_channels=CHANNELS, top_block=None)


def _predictor(**options: Any) -> BoxPredictor:
    return BoxPredictor(
        **{
            "input_shape": ShapeSpec(channels=24),
            "box2box_transform": Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
            "num_classes": NUM_CLASSES,
            "test_score_thresh": 0.0,
            "smooth_l1_beta": 1.0,
            **options,
        }
    )


def _deepacc_predictor(
    margin: str | None = "angular",
    inference: bool = True,
    gia: bool = True,
    *,
    s: float = 16.0,
    delta: float = 0.5,
    detach_centers: bool = True,
    center: Any = "single",
    center_share: float = 1.0,
    **options: Any,
) -> DeepACCPredictor:
    branch: Any = None
    if margin == "angular":
        branch = AngularMarginBranch(24, NUM_CLASSES, m=0.25, s=s)
    elif margin == "linear":
        branch = LinearBranch(24, NUM_CLASSES)
    siamese = SiameseInferenceBranch(
        NUM_CLASSES,
        delta=delta,
        detach_centers=detach_centers,
        center=center,
        center_share=center_share,
    )
    return DeepACCPredictor(
        **{
            "input_shape": ShapeSpec(channels=24),
            "box2box_transform": Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
            "num_classes": NUM_CLASSES,
            "smooth_l1_beta": 1.0,
            "margin_branch": branch,
            "inference_branch": siamese if inference else None,
            "gia": GroupInnerAdjacencyLoss() if gia else None,
            **options,
        }
    )


def _roi_heads(
    *, separated: bool = False, predictor: BoxPredictor | None = None, **options: Any
) -> ChromosomeROIHeads:
    deepacc = isinstance(predictor, DeepACCPredictor)
    head = SeparatedBoxHead if separated else FastRCNNConvFCHead
    pooled = ShapeSpec(channels=CHANNELS, height=5, width=5)
    return (DeepACCROIHeads if deepacc else ChromosomeROIHeads)(
        num_classes=NUM_CLASSES,
        batch_size_per_image=32,
        positive_fraction=0.5,
        proposal_matcher=Matcher([0.5], [0, 1]),
        box_in_features=LEVELS,
        box_pooler=ROIPooler(5, [1 / s for s in STRIDES], 2, "ROIAlignV2"),
        box_head=head(pooled, conv_dims=[], fc_dims=[24, 24]),
        box_predictor=predictor or _predictor(**options),
    )


def _rcnn(
    *, in_channels: int = 1, separated: bool = False, statistics_share: float = 0.0, **options: Any
) -> ChromosomeRCNN:
    torch.manual_seed(0)
    anchors = DefaultAnchorGenerator(**ANCHORS)
    return ChromosomeRCNN(
        backbone=_backbone(in_channels),
        proposal_generator=ChromosomeRPN(
            in_features=LEVELS,
            head=StandardRPNHead(in_channels=CHANNELS, num_anchors=anchors.num_anchors[0]),
            anchor_generator=anchors,
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=32,
            positive_fraction=0.5,
            pre_nms_topk=(100, 100),
            post_nms_topk=(30, 30),
        ),
        statistics_share=statistics_share,
        roi_heads=_roi_heads(separated=separated, **options),
        pixel_mean=[200.0] * in_channels,
        pixel_std=[40.0] * in_channels,
    )


def _retinanet(*, in_channels: int = 1, **options: Any) -> ChromosomeRetinaNet:
    torch.manual_seed(0)
    anchors = DefaultAnchorGenerator(**ANCHORS)
    return ChromosomeRetinaNet(
        **{
            "backbone": _backbone(in_channels),
            "head": RetinaNetHead(
                input_shape=[ShapeSpec(channels=CHANNELS, stride=s) for s in STRIDES],
                num_classes=NUM_CLASSES,
                num_anchors=anchors.num_anchors[0],
                conv_dims=[CHANNELS],
                norm="GN",
            ),
            "head_in_features": LEVELS,
            "anchor_generator": anchors,
            "box2box_transform": Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            "anchor_matcher": Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True),
            "num_classes": NUM_CLASSES,
            "test_score_thresh": 0.0,
            "pixel_mean": [200.0] * in_channels,
            "pixel_std": [40.0] * in_channels,
            **options,
        }
    )


@pytest.fixture
def make_rcnn() -> Build:
    return _rcnn


@pytest.fixture
def make_retinanet() -> Build:
    return _retinanet


@pytest.fixture
def make_roi_heads() -> Build:
    torch.manual_seed(0)
    return _roi_heads


@pytest.fixture
def make_predictor() -> Build:
    torch.manual_seed(0)
    return _predictor


@pytest.fixture
def make_deepacc_predictor() -> Build:
    torch.manual_seed(0)
    return _deepacc_predictor


def _item(
    height: int = 64, width: int = 96, *, boxes: int = 3, channels: int = 1, seed: int = 0
) -> dict[str, Any]:
    """A training input: noise with that many boxes, which may be none."""
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((height, width))
    corner = torch.rand(boxes, 2, generator=generator) * torch.tensor([width - 40, height - 40])
    instances.gt_boxes = Boxes(torch.cat([corner, corner + 18 + 10 * torch.rand(boxes, 2)], dim=1))
    instances.gt_classes = torch.randint(0, NUM_CLASSES, (boxes,), generator=generator)
    image = torch.randint(0, 256, (channels, height, width), generator=generator, dtype=torch.uint8)
    return {"image": image, "instances": instances}


@pytest.fixture
def make_item() -> Build:
    return _item
