from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from pycocotools import mask

from deepacc_d2.data.formats import Defect, ReadOptions, read_coco
from deepacc_d2.data.formats.coco_content import box_of
from deepacc_d2.errors import DataError


def coco(images, annotations, categories=((1, "1"), (2, "2"))):
    return {
        "images": [
            {"id": key, "file_name": name, "width": 64, "height": 48} for key, name in images
        ],
        "annotations": [
            {"id": n, "image_id": key, "category_id": category, "bbox": bbox}
            for n, (key, category, bbox) in enumerate(annotations)
        ],
        "categories": [{"id": key, "name": name} for key, name in categories],
    }


def read(source, value):
    source.json("annotations/all.json", value)
    return read_coco(source.root, ReadOptions())


@pytest.fixture
def two_images(source):
    source.image("images/a.png")
    source.image("images/b.png")
    return source


def test_two_images_of_one_id_are_refused(two_images):
    value = coco([(1, "a.png"), ("1", "b.png")], [(1, 1, [4, 5, 10, 20])])
    with pytest.raises(DataError, match=r"all\.json: image id 1 is both a\.png and b\.png"):
        read(two_images, value)


def test_two_classes_of_one_id_are_refused(two_images):
    value = coco([(1, "a.png")], [(1, 1, [4, 5, 10, 20])], [(1, "1"), ("1", "21")])
    with pytest.raises(DataError, match="category id 1 is both '1' and '21'"):
        read(two_images, value)
    value = coco([(1, "a.png")], [(1, 1, [4, 5, 10, 20])], [(1, "1"), (1, "chr1")])
    assert [box.label for box in read(two_images, value).records[0].boxes] == ["1"]


def test_two_ids_of_one_class_are_noted(two_images):
    value = coco([(1, "a.png")], [(1, 9, [4, 5, 10, 20])], [(1, "1"), (9, "A1"), (2, "2")])
    result = read(two_images, value)
    assert [str(i) for i in result.issues if i.defect is Defect.CLASS_TWICE] == [
        "all.json: ids 1 and 9 are class 1"
    ]


def test_a_key_that_is_there_twice_is_reported(two_images):
    text = json.dumps(coco([(1, "a.png")], [(1, 1, [4, 5, 10, 20])]))
    two_images.text("annotations/all.json", text[:-1] + ', "annotations": []}')
    with pytest.raises(DataError, match="the key 'annotations' twice"):
        read_coco(two_images.root, ReadOptions())


@pytest.mark.parametrize("key", ["7", 7.0, " 7"])
def test_ids_match_whether_number_or_text(two_images, key):
    value = coco([(7, "a.png"), (8, "b.png")], [(key, "2", [4, 5, 10, 20])])
    own = {record.path.name: record for record in read(two_images, value).records}
    assert [box.label for box in own["a.png"].boxes] == ["2"]
    assert own["b.png"].boxes == []


def test_without_ids_nothing_is_guessed(two_images):
    value = coco([(None, "a.png"), (8, "b.png")], [(None, 1, [4, 5, 10, 20]), (8, 5, [1, 2, 9, 9])])
    value["categories"].append({"id": 5})
    result = read(two_images, value)
    boxes = {record.path.name: [b.label for b in record.boxes] for record in result.records}
    assert boxes == {"a.png": [], "b.png": ["category_id 5 without a name"]}
    assert "1 annotation(s) of image_id None" in str(result.issues[0])


def test_corners_for_sizes_are_refused(two_images):
    corners = [[n, n, n + 30, n + 30] for n in range(1, 17, 3)]
    value = coco([(1, "a.png")], [(1, 1, box) for box in corners])
    with pytest.raises(DataError, match=r"reads as corners .* 2 of 6 stick out"):
        read(two_images, value)
    fits = [[n, n, 20, 20] for n in range(1, 17, 3)]
    assert len(read(two_images, coco([(1, "a.png")], [(1, 1, b) for b in fits])).records) == 1


@pytest.mark.parametrize("degrees", [30.0, -30, "30", 150, 90, 360 + 30])
def test_a_rotated_box_of_cvat_gives_the_box_around_it(degrees):
    annotation = {"bbox": [10, 20, 30, 8], "attributes": {"rotation": degrees}}
    box, notes = box_of(annotation, "1")
    # OpenCV's own rotated rectangle is the independent answer
    expected = cv2.boxPoints(((25, 24), (30, 8), float(degrees)))
    low, high = expected.min(axis=0), expected.max(axis=0)
    assert box.xyxy == pytest.approx((*low, *high), abs=1e-4)
    corners = np.sort(np.reshape(box.segmentation[0], (-1, 2)), axis=0)
    np.testing.assert_allclose(corners, np.sort(expected, axis=0), atol=1e-4)
    assert [defect for defect, _ in notes] == [Defect.ENCLOSED]


def test_rotation_is_left_alone_where_there_is_none():
    for rotation in (0, 0.0, None, 180):
        annotation = {"bbox": [10, 20, 30, 8], "attributes": {"rotation": rotation}}
        assert box_of(annotation, "1")[0].xyxy == (10, 20, 40, 28)
    annotation = {"bbox": [10, 20, 30, 8], "attributes": {"rotation": "north"}}
    box, notes = box_of(annotation, "1")
    assert box is None
    assert notes[0][0] is Defect.BAD_SHAPE


@pytest.mark.parametrize("bbox", [{}, {"bbox": []}, {"bbox": [0, 0, 0, 0]}, {"bbox": None}])
def test_an_outline_without_bbox_is_enclosed(bbox):
    parts = [[10, 10, 20, 10, 20, 30], [22, 5, 28, 5, 28, 9]]
    box, notes = box_of({**bbox, "segmentation": parts}, "1")
    assert (box.xyxy, box.segmentation) == ((10, 5, 28, 30), parts)
    assert [defect for defect, _ in notes] == [Defect.ENCLOSED]
    assert box_of({**bbox, "segmentation": parts[0]}, "1")[0].xyxy == (10, 10, 20, 30)


def test_a_mask_without_bbox_is_enclosed():
    pixels = np.zeros((48, 64), dtype=np.uint8)
    pixels[5:17, 8:30] = 1
    packed = mask.encode(np.asfortranarray(pixels))
    packed["counts"] = packed["counts"].decode()
    runs = np.flatnonzero(np.diff(pixels.ravel(order="F"), prepend=0, append=0))
    plain = np.diff(runs, prepend=0, append=pixels.size).tolist()
    for rle in (packed, {"size": [48, 64], "counts": plain}):
        box, _ = box_of({"segmentation": rle}, "1")
        assert box.xyxy == (8, 5, 30, 17)
        assert mask.area(box.segmentation) == pixels.sum()


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [48, 64], "counts": [5]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [48], "counts": "abc"},
        {"size": [48, 64], "counts": "~~~"},
        {"size": [48, 64], "counts": "111"},
        {"size": [48, 64], "counts": "oo"},
        {"counts": [1]},
        [[1, 2, 3]],
        [[1, 2, math.nan, 4, 5, 6]],
        [["a", "b", "c", "d", "e", "f"]],
        "polygon",
    ],
)
def test_damaged_outlines_are_none(segmentation):
    assert box_of({"segmentation": segmentation}, "1") == (
        None,
        [(Defect.BAD_SHAPE, "1 without bbox")],
    )
    assert box_of({"segmentation": segmentation, "bbox": [1, 2, 3, 4]}, "1")[0].segmentation is None


@pytest.mark.parametrize(
    ("flag", "crowd"),
    [(1, True), ("1", True), (True, True), ("0", False), (0, False), (None, False)],
)
def test_a_crowd_region_is_one_chromosome_and_reported(flag, crowd):
    box, notes = box_of({"bbox": [1, 2, 3, 4], "iscrowd": flag}, "1")
    assert box.xyxy == (1, 2, 4, 6)
    assert [defect for defect, _ in notes] == [Defect.CROWD] * crowd


def test_sizes_are_read_as_text_too_and_never_trip(two_images):
    value = coco([(1, "a.png"), (2, "b.png")], [(1, 1, [4, 5, 10, 20])])
    value["images"][0].update(width="64", height=48.0)
    value["images"][1].update(width=math.inf, height="tall")
    sizes = {r.path.name: (r.width, r.height) for r in read(two_images, value).records}
    assert sizes == {"a.png": (64, 48), "b.png": (None, None)}
