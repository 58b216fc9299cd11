"""Cuts: each box gets its own chromosome, whatever lies beside it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.karyogram.cut import cut_cell

WHITE, BLACK = 230, 90


def page(*bodies):
    """A page of rods ((x, y), (x, y)), 15 px wide, and the mask of each; a few lie elsewhere."""
    gray = np.full((220, 260), WHITE, np.uint8)
    masks = []
    for start, stop in (*bodies, ((20, 200), (90, 200)), ((150, 205), (230, 205))):
        mask = np.zeros(gray.shape, np.uint8)
        cv2.line(mask, start, stop, 1, 15)
        masks.append(mask > 0)
        gray[mask > 0] = np.minimum(gray[mask > 0] - 30, BLACK)
    return cv2.GaussianBlur(gray, (0, 0), 0.8), masks[: len(bodies)]


def box_of(mask, margin=3):
    ys, xs = np.nonzero(mask)
    return (xs.min() - margin, ys.min() - margin, xs.max() + 1 + margin, ys.max() + 1 + margin)


def placed(cut, shape):
    whole = np.zeros(shape, bool)
    height, width = cut.mask.shape
    whole[cut.y : cut.y + height, cut.x : cut.x + width] = cut.mask
    return whole


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def cut_all(gray, masks):
    cuts = cut_cell(gray, [box_of(mask) for mask in masks])
    return [placed(cut, gray.shape) for cut in cuts]


def test_a_lone_rod_is_cut_to_its_pixels():
    gray, masks = page(((60, 40), (150, 110)))
    assert iou(cut_all(gray, masks)[0], masks[0]) > 0.88


def test_touching_rods_are_divided():
    gray, masks = page(((60, 60), (140, 60)), ((100, 76), (100, 150)))
    for own, mask in zip(cut_all(gray, masks), masks, strict=True):
        assert iou(own, mask) > 0.85


def test_a_small_one_inside_the_box_of_a_bent_one_keeps_itself():
    gray, masks = page(((60, 40), (60, 140)), ((60, 140), (150, 140)), ((110, 70), (140, 70)))
    bent = masks[0] | masks[1]
    cuts = cut_all(gray, [bent, masks[2]])
    assert iou(cuts[0], bent) > 0.85
    assert iou(cuts[1], masks[2]) > 0.85


def test_both_crossing_rods_keep_the_crossing():
    gray, masks = page(((50, 60), (190, 120)), ((100, 150), (140, 20)))
    for own, mask in zip(cut_all(gray, masks), masks, strict=True):
        assert iou(own, mask) > 0.8
        crossing = masks[0] & masks[1]
        assert (own & crossing).sum() > 0.7 * crossing.sum()


def test_a_nucleus_is_no_part_of_what_touches_it():
    gray, masks = page(((40, 40), (110, 40)))
    disc = np.zeros(gray.shape, np.uint8)
    cv2.circle(disc, (165, 40), 48, 1, cv2.FILLED)
    gray[(disc > 0) & ~masks[0]] = BLACK
    own = cut_all(gray, masks)[0]
    assert iou(own, masks[0]) > 0.75
    assert (own & (disc > 0)).sum() < 0.2 * masks[0].sum()


def test_light_chromosomes_on_a_dark_page_come_out_dark_on_white():
    gray, masks = page(((60, 40), (150, 110)))
    box = [box_of(masks[0])]
    usual, inverted = cut_cell(gray, box)[0], cut_cell(255 - gray, box)[0]
    assert iou(placed(usual, gray.shape), placed(inverted, gray.shape)) > 0.95
    assert np.abs(usual.dark - inverted.dark).mean() < 0.02
    assert inverted.dark[inverted.mask].mean() > 0.6
    assert inverted.dark[0].max() < 0.05


@pytest.mark.parametrize(
    "box",
    [
        (5, 5, 6, 6),
        (5.2, 5.2, 5.3, 5.3),
        (-20, -20, -10, -10),
        (0, 0, 1, 220),
        (250, 210, 400, 400),
        (30, 30, 30, 30),
        (50, 40, 20, 10),
        (np.nan, 0, 5, np.inf),
        (-1e9, -1e9, 1e9, 1e9),
    ],
)
def test_odd_boxes_give_at_least_a_pixel(box):
    gray, masks = page(((60, 40), (150, 110)))
    for image in (gray, np.full_like(gray, 200), np.zeros((1, 1), np.uint8)):
        cuts = cut_cell(image, [box, box_of(masks[0])])
        assert len(cuts) == 2
        for cut in cuts:
            assert cut.dark.shape == cut.mask.shape
            assert cut.mask.any()
            assert np.isfinite(cut.dark).all()
            assert 0 <= cut.dark.min() <= cut.dark.max() <= 1


def test_no_box_no_cut():
    assert cut_cell(np.full((20, 20), 200, np.uint8), []) == []


def test_touching_pairs_of_synthetic_spreads_keep_their_own_pixels():
    found = []
    for case in range(2):
        config = SyntheticConfig(seed=21, overlap_rate=0.6, nucleus_rate=0.0, size_variation=0.0)
        gray, record = render_metaphase(config, case, 0)
        annotations = record["annotations"]
        masks = [coco_mask.decode(a["segmentation"]).astype(bool) for a in annotations]
        claims = np.sum(masks, axis=0)
        cuts = cut_all(gray, masks)
        for own, mask in zip(cuts, masks, strict=True):
            grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            if (grown & (claims - mask > 0)).any():
                found.append(iou(own, mask))
    assert len(found) >= 15, "the spreads have touching and crossing chromosomes"
    assert np.median(found) > 0.8
    assert np.mean(np.array(found) > 0.6) > 0.75
