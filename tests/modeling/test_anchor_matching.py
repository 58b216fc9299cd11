"""Anchor matching against Detectron2's matrix of all pairs."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou

from deepacc_d2.modeling.anchor_matching import match, overlaps


def grid() -> torch.Tensor:
    """Anchors of two levels over an image of 160 x 224 pixels."""
    generator = DefaultAnchorGenerator(
        sizes=[[16, 24], [40, 70]], aspect_ratios=[[0.5, 1.0, 2.0]], strides=[8, 16], offset=0.5
    )
    return Boxes.cat(generator([torch.zeros(1, 1, 20, 28), torch.zeros(1, 1, 10, 14)])).tensor


def truth(seed: int, n: int = 46) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * torch.tensor([190.0, 130.0])
    return torch.cat([corner, corner + 8 + 40 * torch.rand(n, 2, generator=g)], dim=1)


def matchers() -> list[Matcher]:
    return [
        Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=False),
        Matcher([0.5], [0, 1], allow_low_quality_matches=False),
    ]


@pytest.mark.parametrize("group", [1, 6, 7, 5000])
def test_every_pair_that_overlaps_is_found_with_its_iou(group: int) -> None:
    boxes, anchors = truth(0), grid()
    found = overlaps(boxes, anchors, group)
    matrix = torch.zeros(len(boxes), len(anchors))
    matrix[found.truth, found.anchor] = found.iou
    assert torch.equal(matrix, pairwise_iou(Boxes(boxes), Boxes(anchors)))
    assert len(found.iou) == int((matrix > 0).sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("matcher", matchers())
def test_the_same_as_detectron2(seed: int, matcher: Matcher) -> None:
    boxes, anchors = truth(seed), grid()
    # Two of the same place, so that there are ties; and anchors that are the truth itself.
    boxes = torch.cat([boxes, boxes[:2], anchors[100:103], anchors[-1:]])
    rows, labels = match(matcher, boxes, anchors, 6)
    expected_rows, expected = matcher(pairwise_iou(Boxes(boxes), Boxes(anchors)))
    assert torch.equal(rows, expected_rows)
    assert torch.equal(labels, expected)
    assert labels.dtype == expected.dtype
    assert (labels == 1).any()


@pytest.mark.parametrize("matcher", matchers())
def test_images_without_chromosomes(matcher: Matcher) -> None:
    anchors = grid()
    expected = matcher(pairwise_iou(Boxes(torch.zeros(0, 4)), Boxes(anchors)))
    for a, b in zip(match(matcher, torch.zeros(0, 4), anchors, 6), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("matcher", matchers())
def test_truth_that_no_anchor_overlaps(matcher: Matcher) -> None:
    boxes, anchors = torch.tensor([[9000.0, 9000, 9010, 9020], [30, 30, 60, 60]]), grid()
    expected = matcher(pairwise_iou(Boxes(boxes), Boxes(anchors)))
    for a, b in zip(match(matcher, boxes, anchors, 6), expected, strict=True):
        assert torch.equal(a, b)
