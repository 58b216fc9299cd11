from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from deepacc_d2.checkpoint import build_from_checkpoint
from deepacc_d2.detection.export.graph import DetectorGraph, siamese_logits, stable_log_odds
from deepacc_d2.detection.network import DetectorCore
from deepacc_d2.errors import DataError
from deepacc_d2.modeling import SiameseInferenceBranch
from deepacc_d2.modeling.local_centers import log_odds

MakeContent = Callable[..., dict[str, Any]]


def drawing(height: int, width: int) -> Tensor:
    """Dark bars on a light ground, (1, 1, H, W) float32."""
    rng = np.random.default_rng(height)
    image = np.full((height, width), 235, dtype=np.float32)
    for _ in range(6):
        y, x = rng.integers(0, height - 12), rng.integers(0, width - 30)
        image[y : y + 10, x : x + 28] = rng.integers(60, 160)
    return torch.from_numpy(image)[None, None]


def core_of(content: dict[str, Any]) -> DetectorCore:
    return DetectorCore(build_from_checkpoint(content, "tiny.ckpt"))


@pytest.mark.parametrize("preset", ["baseline", "sep", "aam", "siamese", "siamese_gia", "deepacc"])
def test_the_graph_is_the_detector(preset: str, make_content: MakeContent) -> None:
    core = core_of(make_content(preset=preset))
    for size in ((128, 160), (64, 96), (32, 48)):
        image = drawing(*size)
        with torch.inference_mode():
            expected, found = core(image), DetectorGraph(core)(image)
        assert len(expected[0])
        for a, b, tolerance in zip(expected, found, (1e-3, 1e-5), strict=True):
            torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def test_one_level_and_many(make_content: MakeContent) -> None:
    one = ("scale.rpn.in_features=[p3]", "scale.rpn.sizes=[[20,42]]", "scale.roi.in_features=[p2]")
    one += ("++model.proposal_generator.anchor_generator.strides=[8]",)
    one += ("++model.roi_heads.box_pooler.scales=[0.25]",)
    core = core_of(make_content(*one))
    image = drawing(96, 128)
    with torch.inference_mode():
        expected, found = core(image), DetectorGraph(core)(image)
    torch.testing.assert_close(expected[1], found[1], atol=1e-5, rtol=0)


def test_no_proposals(make_content: MakeContent) -> None:
    core = core_of(make_content())
    core.model.proposal_generator.min_box_size = 1e6
    with torch.inference_mode():
        boxes, probabilities = DetectorGraph(core)(drawing(64, 64))
    assert boxes.shape == (0, 4)
    assert probabilities.shape == (0, 25)


def test_proposals_that_are_not_finite_are_left_out(make_content: MakeContent) -> None:
    core = core_of(make_content())
    head = core.model.proposal_generator.rpn_head.anchor_deltas
    head.bias.data[0] = torch.nan  # x of the first anchor of each cell
    with torch.inference_mode():
        expected, found = core(drawing(64, 96)), DetectorGraph(core)(drawing(64, 96))
    assert len(expected[0]) == len(found[0]) > 0
    torch.testing.assert_close(expected[0], found[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "centers",
    [
        {},
        {"center": "pair"},
        {"center_share": 0.3},
        {"center": "pair", "center_share": 0.5},
        {"center": "pair", "center_share": 0.0},
    ],
)
@pytest.mark.parametrize("count", [0, 1, 40])
@pytest.mark.parametrize("scale", [1.0, 64.0])
def test_siamese_logits_are_the_branchs(count: int, scale: float, centers: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(count)
    branch = SiameseInferenceBranch(24, delta=0.2 if scale > 1 else 0.05, **centers)
    nn.init.normal_(branch.bias, generator=generator)
    x = torch.randn(count, 8, generator=generator)
    weight = torch.randn(25, 8, generator=generator)
    margin = scale * torch.rand(count, 25, generator=generator)
    corner = 60 * torch.rand(count, 2, generator=generator)
    boxes = torch.cat([corner, corner + 10 + 40 * torch.rand(count, 2, generator=generator)], dim=1)
    with torch.no_grad():
        expected, found = branch(x, margin, weight, [count], boxes)
        torch.testing.assert_close(siamese_logits(branch, x, margin, weight, boxes), expected)
    paired = branch.center == "pair" and count == 40 and scale > 1
    assert bool((found.partner >= 0).any()) == paired


def test_log_odds() -> None:
    logits = 200 * torch.randn(60, 25, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(stable_log_odds(logits), log_odds(logits), rtol=1e-4, atol=1e-4)
    near = torch.randn(60, 25, generator=torch.Generator().manual_seed(3)).double()
    p = near.softmax(dim=1)
    torch.testing.assert_close(stable_log_odds(near), (p / (1 - p)).log())


def test_parts_that_no_graph_can_express_are_named(make_content: MakeContent) -> None:
    core = core_of(make_content())
    core.model.roi_heads.box_pooler = ROIPooler(7, [0.25, 0.125], 0, "ROIPool")
    with pytest.raises(DataError, match=r"a detector with a RoIPool cannot be exported"):
        DetectorGraph(core)
