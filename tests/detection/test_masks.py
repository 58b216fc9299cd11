"""Masks in pixels of the image, whatever the view, the box or the network say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepacc_d2.detection.masks import EDGE, find_masks
from deepacc_d2.images.rings import fill
from deepacc_d2.images.view import View


class Drawn(nn.Module):
    """Says for each window what a function of the view's pixels (x, y) and the box says.

    The mask's edge is where that is zero.
    """

    def __init__(self, levels) -> None:
        super().__init__()
        self.levels = levels
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, boxes: Tensor, areas: Tensor, side: int) -> Tensor:
        step = (areas[:, 2] - areas[:, 0]) / side
        at = torch.arange(side) + 0.5
        x = areas[:, 0, None, None] + at[None, None, :] * step[:, None, None]
        y = areas[:, 1, None, None] + at[None, :, None] * step[:, None, None]
        return self.levels(x, y, boxes[:, :, None, None]) + EDGE


def ellipse(x: Tensor, y: Tensor, box: Tensor) -> Tensor:
    x0, y0, x1, y1 = box.unbind(1)
    away = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2
    return (1 - away.sqrt()) * 5


def view_of(gray: np.ndarray, crop: tuple[int, int, int, int], zoom: float) -> View:
    size = (round((crop[3] - crop[1]) * zoom), round((crop[2] - crop[0]) * zoom))
    return View(np.full(size, 240, np.uint8), zoom, crop, False, True, "")


@pytest.mark.parametrize(
    ("crop", "zoom"), [((0, 0, 300, 200), 1.0), ((20, 10, 300, 190), 1.7), ((0, 0, 300, 200), 0.6)]
)
def test_masks_come_back_to_the_image(crop: tuple[int, int, int, int], zoom: float) -> None:
    gray = np.full((200, 300), 240, np.uint8)
    boxes = np.array([[40.0, 50, 100, 90], [70.5, 60, 150, 140], [220, 20, 232, 180]])
    masks = find_masks(Drawn(ellipse), view_of(gray, crop, zoom), boxes, gray)
    ys, xs = np.mgrid[:200, :300] + 0.5
    true = [
        ((2 * xs - a - c) / (c - a)) ** 2 + ((2 * ys - b - d) / (d - b)) ** 2 < 1
        for a, b, c, d in boxes
    ]
    for mask, own in zip(masks, true, strict=True):
        assert mask is not None
        found = fill(mask.rings, gray.shape)
        assert (found & own).sum() / (found | own).sum() > 0.97
    both = (true[0] & true[1]).sum()
    assert masks[0].shared == pytest.approx(both / true[0].sum(), abs=0.02)
    assert masks[1].shared == pytest.approx(both / true[1].sum(), abs=0.02)
    assert masks[2].shared == 0


def test_a_hole_and_two_parts_are_kept_and_specks_are_not() -> None:
    gray = np.full((100, 100), 240, np.uint8)

    def levels(x: Tensor, y: Tensor, box: Tensor) -> Tensor:
        away = torch.hypot(x - 50, y - 50)
        ring = torch.minimum(20 - away, away - 10)
        part = 8 - torch.hypot(x - 82, y - 50)
        speck = 1.5 - torch.hypot(x - 20, y - 22)
        return torch.maximum(torch.maximum(ring, part), speck).expand(len(box), -1, -1)

    view = view_of(gray, (0, 0, 100, 100), 1.0)
    (mask,) = find_masks(Drawn(levels), view, np.array([[20.0, 20, 90, 80]]), gray)
    assert mask is not None
    assert len(mask.rings) == 3
    found = fill(mask.rings, gray.shape)
    assert not found[50, 50]
    assert found[50, 35]
    assert found[50, 82]
    assert not found[22, 20]


@pytest.mark.parametrize("level", [-3.0, 3.0, float("nan")])
def test_all_nothing_and_no_number_crash_nothing(level: float) -> None:
    gray = np.full((60, 80), 240, np.uint8)
    view = view_of(gray, (0, 0, 80, 60), 1.0)
    boxes = np.array([[5.0, 5, 30, 40], [-20, -20, 10, 8], [79, 59, 80, 60], [50, 40, 40, 30]])
    network = Drawn(lambda x, y, box: torch.full((len(box), x.shape[-1], x.shape[-1]), level))
    masks = find_masks(network, view, boxes, gray)
    assert len(masks) == 4
    for mask in masks:
        if level > 0:
            assert mask is not None
            points = np.concatenate([np.array(ring) for ring in mask.rings])
            assert (points >= 0).all()
            assert (points <= [80, 60]).all()
        else:
            assert mask is None
    assert find_masks(network, view, np.zeros((0, 4)), gray) == []
