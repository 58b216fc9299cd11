"""RoIAlign against torchvision's kernel, which is another computation of the same formula."""

from __future__ import annotations

import pytest
import torch
import torchvision
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from deepacc_d2.modeling.roi_align import FastROIPooler, roi_align


def regions(count: int, images: int, extent: float, *, outside: float = 0.0) -> torch.Tensor:
    corner = torch.rand(count, 2) * (extent + 2 * outside) - outside
    side = torch.rand(count, 2) * extent / 2 + 1
    image = torch.randint(images, (count, 1)).float()
    return torch.cat([image, corner, corner + side], dim=1)


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_torchvisions(
    samples: int, size: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(samples)
    maps = torch.randn(2, 5, 24, 18).contiguous(memory_format=layout)
    rois = regions(40, 2, 80.0, outside=30.0)
    ours, theirs = (maps.clone(memory_format=layout).requires_grad_() for _ in range(2))
    found = roi_align(ours, rois, size, 0.25, samples)
    expected = torchvision.ops.roi_align(theirs, rois, size, 0.25, samples, aligned=True)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    weights = torch.randn_like(expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=5e-4, rtol=1e-3)


def test_a_region_on_a_ramp_pools_the_coordinates_themselves() -> None:
    # A map whose value is its own x: the pooled cell is the x of the cell's center.
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    pooled = roi_align(ramp, torch.tensor([[0, 4.0, 8.0, 20.0, 24.0]]), 4, 1.0, 2)
    centers = torch.tensor([4.0 + 16.0 * (i + 0.5) / 4 - 0.5 for i in range(4)])
    torch.testing.assert_close(pooled[0, 0], centers.expand(4, 4))


def test_pooler_agrees_with_detectron2s_over_levels() -> None:
    torch.manual_seed(0)
    options = {
        "output_size": 7,
        "scales": [0.25, 0.125],
        "sampling_ratio": 2,
        "pooler_type": "ROIAlignV2",
    }
    maps = [torch.randn(2, 4, 64, 64), torch.randn(2, 4, 32, 32)]
    boxes = [Boxes(regions(9, 1, 200.0)[:, 1:]), Boxes(regions(5, 1, 200.0)[:, 1:])]
    found = FastROIPooler(**options)(maps, boxes)
    torch.testing.assert_close(found, ROIPooler(**options)(maps, boxes), atol=2e-4, rtol=1e-4)


def test_bf16_maps_are_pooled_in_float32() -> None:
    torch.manual_seed(0)
    maps, rois = torch.randn(1, 3, 16, 16).bfloat16(), regions(6, 1, 60.0)
    pooled = roi_align(maps, rois, 7, 0.25, 2)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, roi_align(maps.float(), rois, 7, 0.25, 2))


def test_pooler_gathers_bf16_levels_in_bf16() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(1, 4, 64, 64).bfloat16(), torch.randn(1, 4, 32, 32).bfloat16()]
    options = {"output_size": 7, "scales": [0.25, 0.125], "sampling_ratio": 2}
    boxes = [Boxes(regions(9, 1, 200.0)[:, 1:])]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = FastROIPooler(**options, pooler_type="ROIAlignV2")(maps, boxes)
    reference = ROIPooler(**options, pooler_type="ROIAlignV2")([m.float() for m in maps], boxes)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), reference, atol=0.02, rtol=0.02)


def test_adaptive_sampling_and_no_regions_go_to_torchvision() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(1, 3, 16, 16, requires_grad=True)]
    for ratio in (0, 2):
        options = {"output_size": 7, "scales": [0.25], "sampling_ratio": ratio}
        pooler = FastROIPooler(**options, pooler_type="ROIAlignV2")
        pooled = pooler(maps, [Boxes(torch.zeros(0, 4))])
        assert pooled.shape == (0, 3, 7, 7)
        boxes = [Boxes(regions(4, 1, 60.0)[:, 1:])]
        reference = ROIPooler(**options, pooler_type="ROIAlignV2")(maps, boxes)
        torch.testing.assert_close(pooler(maps, boxes), reference, atol=2e-4, rtol=1e-4)
