from __future__ import annotations

import math

import pytest

from deepacc_d2.data.box_check import clean_boxes
from deepacc_d2.data.formats import Box, Defect


def clean(*boxes):
    return clean_boxes(list(boxes), width=64, height=48, name="a.png")


def test_sound_boxes_pass_unchanged():
    kept, issues = clean(Box("A1", (0, 0, 64, 48)), Box("Y", (1.5, 2, 3, 4)))
    assert [(box.index, box.xyxy) for box in kept] == [(0, (0, 0, 64, 48)), (23, (1.5, 2, 3, 4))]
    assert issues == []


@pytest.mark.parametrize(
    ("xyxy", "clamped", "defect"),
    [
        ((-1, 3, 10, 20), (0, 3, 10, 20), Defect.BOX_CLAMPED),
        ((3, 4, 65, 49), (3, 4, 64, 48), Defect.BOX_CLAMPED),
        ((3, -20, 10, 20), (3, 0, 10, 20), Defect.BOX_CUT),
    ],
)
def test_overhang_is_clamped_and_reported(xyxy, clamped, defect):
    kept, issues = clean(Box("1", xyxy))
    assert kept[0].xyxy == clamped
    assert [issue.defect for issue in issues] == [defect]


@pytest.mark.parametrize(
    ("xyxy", "defect", "message"),
    [
        ((5, 5, 5, 9), Defect.BOX_NO_AREA, "has no area"),
        ((5, 9, 8, 5), Defect.BOX_NO_AREA, "has no area"),
        ((5, math.nan, 8, 9), Defect.BOX_NO_AREA, "has no area"),
        ((5, 5, 5.9, 9), Defect.BOX_TINY, "under a pixel"),
        ((5, 47.5, 9, 60), Defect.BOX_TINY, "under a pixel"),
        ((0.1, 0.2, 0.4, 0.6), Defect.BOX_TINY, "relative coordinates"),
        ((0, 0, 1, 1), Defect.BOX_TINY, "relative coordinates"),
        ((64, 5, 70, 9), Defect.BOX_OUTSIDE, "outside 64x48"),
        ((5, -9, 8, 0), Defect.BOX_OUTSIDE, "outside 64x48"),
    ],
)
def test_useless_boxes_are_dropped_and_reported(xyxy, defect, message):
    kept, issues = clean(Box("C6", xyxy))
    assert kept == []
    assert issues[0].defect is defect
    assert message in str(issues[0])
    assert "a.png" in str(issues[0])


@pytest.mark.parametrize("label", ["-1", "119", "B1", "", "nucleus"])
def test_unknown_class_drops_the_box_alone(label):
    kept, issues = clean(Box(label, (1, 2, 3, 4)), Box("2", (1, 2, 3, 4)))
    assert [box.index for box in kept] == [1]
    assert str(issues[0]) == f"a.png: class {label!r}"


def test_same_box_twice_is_kept_once_but_homologues_stay():
    kept, issues = clean(
        Box("1", (1, 2, 3, 4)),
        Box("A1", (1, 2, 3, 4)),
        Box("2", (1, 2, 3, 4)),
        Box("1", (9, 2, 12, 4)),
    )
    assert [box.index for box in kept] == [0, 1, 0]
    assert [issue.defect for issue in issues] == [Defect.DUPLICATE_BOX]


def test_polygon_is_clipped_to_the_image():
    kept, _ = clean(Box("1", (-5, 40, 10, 60), [[-5, 40, 10, 60, 3, 44]]))
    assert kept[0].segmentation == [[0, 40, 10, 48, 3, 44]]


def test_a_mask_of_another_size_is_dropped():
    rle = {"size": [48, 64], "counts": "..."}
    other = {"size": [64, 48], "counts": "..."}
    kept, _ = clean(Box("1", (1, 2, 9, 9), rle), Box("2", (1, 2, 9, 9), other))
    assert [box.segmentation for box in kept] == [rle, None]
