"""Masks cut the karyogram, and odd ones say so."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deepacc_d2.karyogram.cut import cut_cell
from deepacc_d2.karyogram.doubt import REASONS, bend_of, doubts, doubts_of_mask
from deepacc_d2.karyogram.straighten import straighten, trimmed

WHITE, BLACK = 230, 90
NOWHERE = np.zeros((60, 80), bool)


def outline_of(mask: np.ndarray) -> list[list[tuple[float, float]]]:
    """Returns the rings around a mask, exact to a quarter of a pixel."""
    large = np.repeat(np.repeat(mask, 4, 0), 4, 1).astype(np.uint8)
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return [[((x + 0.5) / 4, (y + 0.5) / 4) for x, y in ring[:, 0].tolist()] for ring in contours]


def page(*bodies) -> tuple[np.ndarray, list[np.ndarray]]:
    gray, masks = np.full((220, 260), WHITE, np.uint8), []
    for start, stop in (*bodies, ((20, 200), (90, 200)), ((150, 205), (230, 205))):
        mask = np.zeros(gray.shape, np.uint8)
        cv2.line(mask, start, stop, 1, 15)
        masks.append(mask > 0)
        gray[mask > 0] = np.minimum(gray[mask > 0] - 30, BLACK)
    return cv2.GaussianBlur(gray, (0, 0), 0.8), masks


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask)
    return (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))


def placed(cut, shape) -> np.ndarray:
    whole = np.zeros(shape, bool)
    whole[cut.y : cut.y + cut.mask.shape[0], cut.x : cut.x + cut.mask.shape[1]] = cut.mask
    return whole


def test_crossing_masks_are_cut_as_they_are_and_marked():
    gray, masks = page(((50, 60), (190, 120)), ((100, 150), (140, 20)))
    outlines = {n: outline_of(mask) for n, mask in enumerate(masks[:2])}
    cuts = cut_cell(gray, [box_of(mask) for mask in masks], outlines)
    crossing = masks[0] & masks[1]
    for cut, mask in zip(cuts[:2], masks, strict=False):
        found = placed(cut, gray.shape)
        assert (found & mask).sum() / (found | mask).sum() > 0.97
        assert cut.shared.sum() == pytest.approx(crossing.sum(), rel=0.1)
        assert cut.doubts == ("crossing",)
        # Nothing of the other one is in the picture.
        other = np.zeros(gray.shape, np.float32)
        other[cut.y : cut.y + cut.dark.shape[0], cut.x : cut.x + cut.dark.shape[1]] = cut.dark
        rest = (masks[0] | masks[1]) & ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
        assert other[rest].max() < 0.1
    # Those without a mask are cut by the threshold, as ever.
    alone = cut_cell(gray, [box_of(mask) for mask in masks])
    for with_masks, without in zip(cuts[2:], alone[2:], strict=True):
        np.testing.assert_array_equal(with_masks.mask, without.mask)
        assert with_masks.shared is None


def test_of_a_mask_in_parts_the_strip_shows_what_is_together():
    gray, masks = page(((60, 40), (150, 110)), ((200, 30), (230, 60)))
    satellite = np.zeros_like(masks[0])
    satellite[116:121, 158:164] = True
    both = masks[0] | masks[1] | satellite
    cut = cut_cell(gray, [box_of(both)], {0: outline_of(both)})[0]
    found = placed(cut, gray.shape)
    assert (found & masks[0]).sum() > 0.97 * masks[0].sum()
    assert (found & satellite).sum() > 0.9 * satellite.sum()
    assert not (found & masks[1]).any()
    assert cut.doubts == ("in_parts",)


def test_a_mask_may_leave_its_box():
    gray, masks = page(((50, 60), (190, 120)))
    x0, y0, x1, y1 = box_of(masks[0])
    cut = cut_cell(gray, [(x0 + 20, y0 + 5, x1 - 10, y1)], {0: outline_of(masks[0])})[0]
    found = placed(cut, gray.shape)
    assert (found & masks[0]).sum() / (found | masks[0]).sum() > 0.97


@pytest.mark.parametrize(
    "rings",
    [
        [],
        [[]],
        [[(10.0, 10.0)]],
        [[(10.0, 10.0), (12.0, 12.0)]],
        [[(10.0, 10.0), (10.2, 10.0), (10.2, 10.2)]],  # less than a pixel
        [[(-50.0, -50.0), (-40.0, -50.0), (-40.0, -40.0)]],  # outside
        [[(0.0, 0.0), (260.0, 0.0), (260.0, 220.0), (0.0, 220.0)]],  # all of it
        [[(30.0, 30.0), (31.0, 30.0), (31.0, 200.0), (30.0, 200.0)]],  # a line
        [[(-20.0, 30.0), (60.0, 20.0), (60.0, 60.0), (-20.0, 50.0)]],  # over the border
        [[(20.0, 20.0), (60.0, 60.0), (60.0, 20.0), (20.0, 60.0)]],  # crosses itself
        [
            [(20.0, 20.0), (40.0, 20.0), (40.0, 30.0)],
            [(150.0, 150.0), (180.0, 150.0), (180.0, 170.0)],
        ],
    ],
)
def test_odd_masks_give_a_strip(rings):
    gray, _ = page(((60, 40), (150, 110)))
    box = (55.0, 30.0, 160.0, 120.0)
    for zoom in (0.5, 2.0):
        cut = cut_cell(gray, [box], {0: rings})[0]
        straight = straighten(cut, zoom)
        assert min(straight.dark.shape) >= 1
        assert np.isfinite(trimmed(straight)).all()
        assert set(straight.doubts) <= set(REASONS)


def test_random_masks_give_strips():
    rng = np.random.default_rng(0)
    gray, _ = page(((60, 40), (150, 110)))
    for _ in range(40):
        count = int(rng.integers(1, 4))
        rings = [
            (rng.normal(rng.uniform(0, 250, 2), rng.uniform(1, 60), (int(rng.integers(3, 9)), 2)))
            for _ in range(count)
        ]
        box = tuple(np.sort(rng.uniform(-20, 280, (2, 2)), axis=0).ravel())
        straight = straighten(cut_cell(gray, [box], {0: [r.tolist() for r in rings]})[0], 1.5)
        assert np.isfinite(straight.dark).all()


def drawn(draw) -> np.ndarray:
    mask = np.zeros((60, 80), np.uint8)
    draw(mask)
    return mask > 0


@pytest.mark.parametrize(
    ("mask", "shared", "found"),
    [
        (drawn(lambda m: cv2.line(m, (10, 10), (60, 40), 1, 9)), None, ()),
        (drawn(lambda m: cv2.circle(m, (40, 30), 20, 1, 8)), None, ("ring",)),
        (
            drawn(
                lambda m: (cv2.line(m, (5, 5), (30, 5), 1, 7), cv2.line(m, (5, 40), (30, 40), 1, 7))
            ),
            None,
            ("in_parts",),
        ),
        (drawn(lambda m: cv2.line(m, (0, 30), (60, 30), 1, 9)), None, ("at_border",)),
        (drawn(lambda m: cv2.line(m, (10, 30), (60, 30), 1, 9)), (20, 30), ("crossing",)),
        (drawn(lambda m: cv2.line(m, (10, 30), (60, 30), 1, 9)), (20, 21), ()),
    ],
)
def test_what_a_mask_says(mask, shared, found):
    common = None
    if shared is not None:
        common = np.zeros_like(mask)
        common[:, shared[0] : shared[1]] = mask[:, shared[0] : shared[1]]
    border = np.ones_like(mask)
    border[1:-1, 1:-1] = False
    assert doubts_of_mask(mask, common, border) == found


@pytest.mark.parametrize("turn", [0.0, 0.5, 1.2, 2.0, 3.0])
def test_the_bend_is_the_angle_that_an_arc_turns_by(turn):
    s = np.arange(0, 120.0)
    arc = np.cumsum(np.exp(1j * turn * s / 120))
    assert bend_of(arc, 6.0) == pytest.approx(turn, rel=0.06, abs=0.02)
    assert ("bent" in doubts((), arc, 6.0)) == (turn > np.pi / 2)


def test_an_s_is_not_bent_and_a_closed_circle_is_a_ring():
    s = np.arange(0, 120.0)
    wave = np.cumsum(np.exp(1j * 0.6 * np.sin(2 * np.pi * s / 120)))
    assert doubts((), wave, 6.0) == ()
    circle = np.cumsum(np.exp(1j * 1.9 * np.pi * s / 120))
    assert "ring" in doubts((), circle, 6.0)


def test_chromatids_that_stand_apart_are_in_one_strip():
    mask = np.zeros((150, 80), np.uint8)
    cv2.line(mask, (35, 20), (33, 130), 1, 9)
    cv2.line(mask, (46, 20), (48, 130), 1, 9)
    cv2.circle(mask, (40, 75), 7, 1, -1)
    gray = np.where(mask > 0, BLACK, WHITE).astype(np.uint8)
    rods = np.zeros_like(gray)
    cv2.line(rods, (70, 10), (70, 140), 1, 12)
    gray[rods > 0] = BLACK
    mask = mask > 0
    cut = cut_cell(gray, [box_of(mask)], {0: outline_of(mask)})[0]
    straight = straighten(cut)
    assert straight.mask.sum() == pytest.approx(mask.sum(), rel=0.08)
    width = int(straight.mask.any(axis=0).sum())
    assert 20 <= width <= 28
