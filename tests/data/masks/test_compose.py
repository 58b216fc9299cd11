"""Composed spreads: real pixels, and masks that are whole under crossings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deepacc_d2.data.masks.bodies import isolated_bodies
from deepacc_d2.data.masks.compose import Crowding, compose
from deepacc_d2.data.masks.samples import make_sample
from deepacc_d2.data.masks.spreads import Spread, drawn_spread, outlined, read_spread, spread_of
from deepacc_d2.errors import ConfigError, DataError

ENDS = [
    ((30, 40), (90, 50)),
    ((150, 30), (170, 100)),
    ((40, 150), (100, 120)),
    ((190, 160), (230, 130)),
]
PAIR = [((130, 190), (200, 200)), ((160, 170), (165, 225))]  # these cross


def page() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """A page of rods 13 px wide with blurred edges, their boxes and true masks."""
    dark, masks, boxes = np.zeros((250, 260), np.float32), [], []
    for start, stop in (*ENDS, *PAIR):
        mask = np.zeros(dark.shape, np.uint8)
        cv2.line(mask, start, stop, 1, 13)
        masks.append(mask > 0)
        ys, xs = np.nonzero(mask)
        boxes.append([xs.min() - 4, ys.min() - 4, xs.max() + 5, ys.max() + 5])
        dark = np.maximum(dark, 120.0 * mask)
    image = 240 - cv2.GaussianBlur(dark, (0, 0), 1.2)
    return np.rint(image).astype(np.uint8), np.array(boxes, float), masks


def whole(corner: tuple[int, int], mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(shape, bool)
    found[corner[1] : corner[1] + mask.shape[0], corner[0] : corner[0] + mask.shape[1]] = mask
    return found


def test_isolated_rods_are_cut_at_half_of_their_edge() -> None:
    image, boxes, masks = page()
    bodies = isolated_bodies(image, boxes)
    assert [body.row for body in bodies] == [0, 1, 2, 3]
    for body in bodies:
        found, true = whole(body.corner, body.mask, image.shape), masks[body.row]
        assert (found & true).sum() / (found | true).sum() > 0.93
        assert body.margins == pytest.approx([4, 4, 4, 4], abs=1.5)


@pytest.mark.parametrize("seed", range(6))
def test_moved_rods_keep_their_size_and_their_darkness(seed: int) -> None:
    image, boxes, _ = page()
    bodies = isolated_bodies(image, boxes)
    spread = Spread(image, bodies, [0, 1, 2, 3])
    crowded, placed = compose(spread, Crowding(share=1.0, bent=0.3), np.random.default_rng(seed))
    assert crowded.shape == image.shape
    assert 1 <= len(placed) <= 4
    areas = sorted(body.mask.sum() for body in bodies)
    for each in placed:
        found = whole(each.corner, each.mask, image.shape)
        assert areas[0] * 0.93 < found.sum() < areas[-1] * 1.07
        # Covered or not, there is a chromosome wherever the mask is.
        assert (crowded[found] < 240 - 15).mean() > 0.95
        ys, xs = np.nonzero(found)
        around = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        inside = np.array([4, 4, image.shape[1] - 4, image.shape[0] - 4])
        free = np.array([*(around[:2] >= inside[:2]), *(around[2:] <= inside[2:])])
        off = (around - each.box) * [1, 1, -1, -1]
        assert off[free] == pytest.approx(np.full(free.sum(), 4), abs=1.6)


def test_the_share_covered_is_what_the_masks_have_in_common() -> None:
    image, boxes, _ = page()
    spread = Spread(image, isolated_bodies(image, boxes), [0, 1, 2, 3])
    covered = 0.0
    for seed in range(10):
        _, placed = compose(spread, Crowding(share=0.8, near=0.4), np.random.default_rng(seed))
        count = sum(whole(p.corner, p.mask, image.shape).astype(int) for p in placed)
        for each in placed:
            own = whole(each.corner, each.mask, image.shape)
            assert each.covered == pytest.approx((count[own] > 1).mean())
            covered = max(covered, each.covered)
    assert covered > 0.1


def test_the_same_seed_gives_the_same_spread() -> None:
    image, boxes, _ = page()
    spread = Spread(image, isolated_bodies(image, boxes), [0, 1, 2, 3])
    one, two = (compose(spread, Crowding(), np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    assert [p.corner for p in one[1]] == [p.corner for p in two[1]]


def test_a_sample_shows_each_mask_in_the_window_of_its_box() -> None:
    image, boxes, _ = page()
    spread = Spread(image, isolated_bodies(image, boxes), [0, 1, 2, 3])
    crowded, placed = compose(spread, Crowding(), np.random.default_rng(1))
    sample = make_sample(crowded, placed, None)
    seen = 0
    for group, masks in zip(sample.windows, sample.masks, strict=True):
        for row, area, mask in zip(group.rows.tolist(), group.areas, masks, strict=True):
            x, y = (int(v) for v in area[:2])
            large = np.pad(whole(placed[row].corner, placed[row].mask, image.shape), 200)
            shown = large[y + 200 : y + 200 + group.side, x + 200 : x + 200 + group.side]
            np.testing.assert_array_equal(mask.numpy() > 0.5, shown)
            seen += 1
    assert seen == len(placed)


def test_disturbed_boxes_stay_around_their_masks() -> None:
    image, boxes, _ = page()
    spread = Spread(image, isolated_bodies(image, boxes), [0, 1, 2, 3])
    rng = np.random.default_rng(0)
    for _ in range(20):
        sample = make_sample(*compose(spread, Crowding(), rng), rng, most=3)
        assert len(sample.boxes) <= 3
        for group, masks in zip(sample.windows, sample.masks, strict=True):
            for row, area, mask in zip(group.rows.tolist(), group.areas, masks, strict=True):
                ys, xs = np.nonzero(mask.numpy() > 0.5)
                found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
                off = found + np.tile(area[:2], 2) - sample.boxes[row].numpy()
                assert np.abs(off).max() < 4 + 8


def test_outlines_are_told_from_boxes() -> None:
    box = [10.0, 10, 30, 20]
    plain = [[10, 10, 40, 10, 40, 30, 10, 30]]
    polygon = [[10, 10, 40, 15, 40, 30, 20, 30, 12, 22]]
    turned = [[10, 20, 25, 10, 40, 20, 25, 30]]
    coco = {
        "images": [{"id": 3}],
        "annotations": [
            {"image_id": 3, "bbox": box, "segmentation": s} for s in (plain, polygon, turned, [])
        ],
    }
    assert outlined(coco) == {3: [None, polygon, turned, None]}


def test_outlines_are_the_masks_and_crossing_ones_stay() -> None:
    image, boxes, masks = page()
    contours = [
        cv2.findContours(np.repeat(np.repeat(m, 4, 0), 4, 1).astype(np.uint8), 0, 1)[0][0][:, 0]
        for m in masks
    ]
    outlines = [[((c + 0.5) / 4).ravel().tolist()] for c in contours]
    spread = spread_of(image, boxes, outlines, chromosome_size=80.0, max_size=2000)
    assert spread is not None
    assert len(spread.bodies) == 6
    assert spread.free == [0, 1, 2, 3]
    scale = spread.image.shape[1] / image.shape[1]
    for body, mask in zip(spread.bodies, masks, strict=True):
        size = spread.image.shape[::-1]
        true = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
        found = whole(body.corner, body.mask, spread.image.shape)
        assert (found & true).sum() / (found | true).sum() > 0.9, scale


def test_drawn_spreads_have_all_masks() -> None:
    spread = drawn_spread(3, 0, chromosome_size=40.0, max_size=900)
    assert spread is not None
    assert len(spread.bodies) > 40
    assert 5 < len(spread.free) < len(spread.bodies)
    dark = 240.0 - spread.image
    for body in spread.bodies[::5]:
        assert dark[whole(body.corner, body.mask, spread.image.shape)].mean() > 40


def test_an_image_of_another_size_is_refused(tmp_path) -> None:
    image, boxes, _ = page()
    cv2.imwrite(str(tmp_path / "a.png"), image)
    item = {"file_name": str(tmp_path / "a.png"), "height": 9, "width": 9, "boxes": boxes}
    with pytest.raises(DataError, match="annotated as 9x9"):
        read_spread(item, [None] * len(boxes), chromosome_size=40.0, max_size=900)


def test_crowding_refuses_what_means_nothing() -> None:
    with pytest.raises(ConfigError, match="share"):
        Crowding(share=1.5)
    with pytest.raises(ConfigError, match="near > 0"):
        Crowding(near=0)
