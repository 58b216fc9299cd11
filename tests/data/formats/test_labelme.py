from __future__ import annotations

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
