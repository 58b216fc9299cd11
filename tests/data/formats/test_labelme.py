from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from deepacc_d2.data.formats import Defect, ReadOptions, read_labelme
from deepacc_d2.errors import DataError


def shape(label, points, kind="polygon"):
    return {"label": label, "points": points, "shape_type": kind}


def labelme(image_path, shapes, **more):
    return {"imagePath": image_path, "imageWidth": 64, "imageHeight": 48, "shapes": shapes, **more}


TRIANGLE = [[5, 6], [25, 10], [15, 30]]


def test_autokary_layout_with_stray_labels(source):
    for split, patient in (("train", "p1"), ("train", "p2"), ("test", "p9")):
        source.image(f"{split}_labelme/{patient}/{patient}_1.jpg")
        shapes = [shape("23", TRIANGLE), shape("-1", TRIANGLE), shape("119", TRIANGLE)]
        source.json(
            f"{split}_labelme/{patient}/{patient}_1.json", labelme(f"{patient}_1.jpg", shapes)
        )
    result = read_labelme(source.root, ReadOptions())
    assert [(r.case_id, r.split) for r in result.records] == [
        ("p9", "test"),
        ("p1", "train"),
        ("p2", "train"),
    ]
    record = result.records[0]
    assert (record.width, record.height) == (64, 48)
    assert [box.label for box in record.boxes] == ["23", "-1", "119"]
    assert record.boxes[0].xyxy == (5, 6, 25, 30)
    assert record.boxes[0].segmentation == [[5, 6, 25, 10, 15, 30]]
    assert result.case_rule == "by parent folder"


def test_rectangles_and_unusable_shapes(source):
    source.image("p1/a.png")
    shapes = [
        shape("1", [[30, 40], [10, 20]], "rectangle"),
        shape("2", [[1, 2]], "point"),
        shape("3", [[1, 2], [3, 4]]),
        {"label": "4"},
    ]
    source.json("p1/a.json", labelme("a.png", shapes))
    (record,) = read_labelme(source.root, ReadOptions()).records
    assert [(b.xyxy, b.segmentation) for b in record.boxes] == [((10, 20, 30, 40), None)]
    assert [i.defect for i in record.issues] == [Defect.BAD_SHAPE] * 3


def test_moved_missing_embedded_and_broken(source):
    source.image("p1/moved.png")
    source.json("p1/moved.json", labelme("..\\elsewhere\\moved.png", [shape("1", TRIANGLE)]))
    source.json("p1/embedded.json", labelme("embedded.png", [], imageData="aGVsbG8="))
    source.text("p1/cut.json", '{"shapes": [')
    source.json("p1/other.json", ["no", "shapes"])
    source.image("p1/lonely.png")
    result = read_labelme(source.root, ReadOptions())
    assert [record.name for record in result.records] == ["p1/moved.png"]
    issues = {i.name: i for i in result.issues}
    assert {name: i.defect for name, i in issues.items()} == {
        "p1/cut.json": Defect.BAD_ANNOTATION,
        "p1/embedded.json": Defect.MISSING_IMAGE,
        "p1/lonely.png": Defect.NO_ANNOTATION,
        "p1/other.json": Defect.BAD_ANNOTATION,
    }
    assert "export it" in issues["p1/embedded.json"].detail
    assert "cut short" in issues["p1/cut.json"].detail


def test_no_json_is_refused(source):
    source.image("p1/a.png")
    with pytest.raises(DataError, match="no LabelMe file"):
        read_labelme(source.root, ReadOptions())


def test_parts_of_a_group_are_one_chromosome(source):
    source.image("p1/a.png")
    other = [[30, 31], [40, 31], [35, 40]]
    shapes = [
        {**shape("1", TRIANGLE), "group_id": 0},
        {**shape("1", other), "group_id": 0},
        {**shape("2", TRIANGLE), "group_id": 0},
        {**shape("1", [[1, 2], [9, 8]], "rectangle"), "group_id": None},
        {**shape("3", [[1, 2], [9, 8]], "rectangle"), "group_id": 4},
        {**shape("3", [[9, 2], [12, 8]], "rectangle"), "group_id": 4},
    ]
    source.json("p1/a.json", labelme("a.png", shapes))
    (record,) = read_labelme(source.root, ReadOptions()).records
    assert [(b.label, b.xyxy) for b in record.boxes] == [
        ("1", (5, 6, 40, 40)),
        ("2", (5, 6, 25, 30)),
        ("1", (1, 2, 9, 8)),
        ("3", (1, 2, 12, 8)),
    ]
    assert record.boxes[0].segmentation == [
        [5, 6, 25, 10, 15, 30],
        [30, 31, 40, 31, 35, 40],
    ]
    assert [str(i) for i in record.issues] == [
        "p1/a.png: 2 parts of 1 in group 0",
        "p1/a.png: 2 parts of 3 in group 4",
    ]


def test_masks_circles_and_rotated_rectangles_are_enclosed(source):
    source.image("p1/a.png")
    pixels = np.zeros((12, 20), dtype=np.uint8)
    pixels[2:9, 3:18] = 255
    embedded = base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()
    turned = cv2.boxPoints(((30, 24), (20, 6), 30)).tolist()
    shapes = [
        {**shape("1", [[10, 20], [29, 31]], "mask"), "mask": embedded},
        shape("2", [[30, 20], [33, 24]], "circle"),
        shape("3", turned, "rotation"),
        shape("4", turned, "oriented_rectangle"),
        {**shape("5", [[10, 20], [29, 31]], "mask"), "mask": "no image"},
        shape("6", [[1, 2], [float("nan"), 4], [5, 6]]),
        shape("7", [[1, 2], [9, 8]], "line"),
    ]
    source.json("p1/a.json", labelme("a.png", shapes))
    (record,) = read_labelme(source.root, ReadOptions()).records
    around = (*np.min(turned, axis=0), *np.max(turned, axis=0))
    expected = [(13, 22, 28, 29), (25, 15, 35, 25), around, around]
    assert [box.label for box in record.boxes] == ["1", "2", "3", "4"]
    for box, xyxy in zip(record.boxes, expected, strict=True):
        assert box.xyxy == pytest.approx(xyxy)
    defects = [i.defect for i in record.issues]
    assert defects == [Defect.ENCLOSED] * 4 + [Defect.BAD_SHAPE] * 3
    # the outline runs along the edges of the mask's rim
    assert (min(record.boxes[0].segmentation[0]), max(record.boxes[0].segmentation[0])) == (
        13.0,
        29.0,
    )


def test_one_flat_folder_and_names_in_another_spelling(source):
    source.image("a.PNG")
    source.image("b c.png")
    source.json("a.json", labelme("", [shape("1", TRIANGLE)]))
    source.json("b c.JSON", labelme("b%20c.PNG", [shape("1", TRIANGLE)]))
    result = read_labelme(source.root, ReadOptions())
    assert [(r.name, r.split) for r in result.records] == [("a.PNG", None), ("b c.png", None)]
    assert result.issues == []


def test_two_files_of_one_image_and_two_images_of_one_stem(source):
    for name in ("a.png", "b.png", "b.jpg"):
        source.image(name)
    source.json("a.json", labelme("a.png", [shape("1", TRIANGLE)]))
    source.json("a_old.json", labelme("a.png", [shape("2", TRIANGLE)]))
    source.json("b.json", labelme("", [shape("1", TRIANGLE)]))
    result = read_labelme(source.root, ReadOptions())
    assert [[b.label for b in r.boxes] for r in result.records] == [["1"]]
    assert [(i.defect, i.name) for i in result.issues] == [
        (Defect.DUPLICATE_IMAGE, "a_old.json"),
        (Defect.AMBIGUOUS, "b.json"),
    ]
