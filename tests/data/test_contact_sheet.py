from __future__ import annotations

import cv2
import numpy as np

from deepacc_d2.data.contact_sheet import (
    GROUP_COLORS,
    contact_sheet,
    draw_boxes,
    write_contact_sheet,
)
from deepacc_d2.data.convert import convert


def test_box_edges_have_the_color_of_the_group_at_scale():
    image = np.full((60, 80), 200, np.uint8)
    drawn = draw_boxes(image, np.array([[10, 20, 50, 40]]), [0], scale=2.0)
    assert drawn.shape == (120, 160, 3)
    assert tuple(drawn[60, 20]) == GROUP_COLORS["A"]
    assert tuple(drawn[79, 60]) == GROUP_COLORS["A"]
    assert tuple(drawn[60, 60]) == (200, 200, 200)
    assert image.max() == 200


def test_labels_of_stacked_boxes_hide_none():
    image = np.full((200, 200), 255, np.uint8)
    one = draw_boxes(image, np.array([[60, 60, 140, 140]]), [23])
    four = draw_boxes(image, np.array([[60, 60, 140, 140]] * 4), [23] * 4)

    def label_pixels(drawn: np.ndarray) -> int:
        return int((drawn == GROUP_COLORS["G"]).all(axis=2).sum())

    line = 4 * 79
    assert label_pixels(four) - line > 3 * (label_pixels(one) - line)


def test_no_boxes_and_color_images_are_fine():
    image = np.zeros((20, 30, 3), np.uint8)
    assert draw_boxes(image, np.empty((0, 4)), []).shape == (20, 30, 3)


def test_sheet_shows_at_most_the_wanted_number(tseng_source, tmp_path):
    out = tmp_path / "out"
    convert("tseng2023", tseng_source.root, out)
    few, many = contact_sheet(out, count=2), contact_sheet(out, count=12)
    assert few.shape[1] < many.shape[1]
    assert few.shape[0] < many.shape[0]
    path = write_contact_sheet(out, count=2)
    assert (cv2.imread(str(path)) == few).all()
