from __future__ import annotations

import pytest
import torch

from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import InstanceMasks
from deepacc_d2.modeling.instance_masks import CONTEXT, SIDES, place_of, show, windows

BOXES = torch.tensor(
    [[10.0, 20, 40, 60], [100, 50, 230, 90], [0, 0, 1, 1], [50, 50, 400, 300], [30, 30, 90, 44]]
)


def test_every_box_has_one_window_with_what_is_around_it() -> None:
    groups = windows(BOXES)
    assert sorted(n for g in groups for n in g.rows.tolist()) == list(range(len(BOXES)))
    for group in groups:
        assert group.side in SIDES
        for row, area in zip(group.rows.tolist(), group.areas, strict=True):
            slack = 0.5  # corners are whole pixels
            assert (area[:2] <= BOXES[row, :2] - CONTEXT + slack).all()
            assert (area[2:] >= BOXES[row, 2:] + CONTEXT - slack).all()
            width, height = (area[2:] - area[:2]).tolist()
            assert width == pytest.approx(height)
            assert width >= group.side - 1e-3
    (large,) = [g for g in groups if 3 in g.rows.tolist()]
    assert large.side == SIDES[-1]
    assert windows(BOXES[:0]) == []


def test_a_window_shows_the_pixels_themselves_and_background_outside() -> None:
    image = torch.randint(0, 255, (1, 1, 90, 120)).float()
    shown = show(image, torch.tensor([[30.0, 10, 94, 74], [-20, -8, 44, 56]]), 64)
    expected = (240 - image[0, 0]) / 200
    assert torch.allclose(shown[0, 0], expected[10:74, 30:94], atol=1e-5)
    assert torch.allclose(shown[1, 0, 8:, 20:], expected[:56, :44], atol=1e-5)
    assert (shown[1, 0, :6] == 0).all()


def test_the_place_in_the_box_is_the_distance_to_its_nearest_side() -> None:
    place = place_of(torch.tensor([[16.0, 8, 48, 56]]), torch.tensor([[0.0, 0, 64, 64]]), 64)[0, 0]
    assert place[32, 32] == 1  # eight pixels and more inside
    assert place[32, 17] == pytest.approx(1.5 / 8)
    assert place[5, 30] == pytest.approx(-2.5 / 8)
    assert ((place > 0).sum() == 32 * 48).item()


def test_a_mask_depends_on_its_own_window_alone() -> None:
    torch.manual_seed(0)
    network = InstanceMasks(width=4).eval()
    image = torch.rand(1, 1, 200, 260) * 255
    boxes = torch.tensor([[30.0, 40, 60, 70], [100, 80, 130, 120], [31, 40, 61, 70]])
    (group,) = windows(boxes)
    with torch.no_grad():
        together = network(image, boxes[group.rows], group.areas, group.side)
        alone = network(image, boxes[:1], group.areas[:1], group.side)
    assert together.shape == (3, 64, 64)
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-3)  # another box is meant


def test_an_empty_box_and_a_blank_image_give_numbers() -> None:
    network = InstanceMasks(width=4).eval()
    boxes = torch.tensor([[5.0, 5, 5, 5], [300, 300, 310, 310]])
    for group in windows(boxes):
        found = network(torch.full((1, 1, 64, 64), 240.0), boxes[group.rows], group.areas, 64)
        assert torch.isfinite(found).all()


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="width >= 1, not 0"):
        InstanceMasks(width=0)
