from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.box_check import CleanBox
from deepacc_d2.data.coco import coco_split, fingerprint, load_coco_split, load_dataset_info
from deepacc_d2.errors import DataError


def test_annotations_of_boxes_and_polygons():
    images = [{"id": 4, "file_name": "a.png", "width": 64, "height": 48}]
    square = [[10, 10, 20, 10, 20, 30, 10, 30]]
    boxes = [[CleanBox(0, (2, 3, 12, 23)), CleanBox(23, (10, 10, 20, 30), square)]]
    coco = coco_split(images, boxes)
    assert coco["categories"] == coco_categories()
    first, second = coco["annotations"]
    assert first == {
        "id": 1,
        "image_id": 4,
        "category_id": 1,
        "bbox": [2, 3, 10, 20],
        "segmentation": [[2, 3, 12, 3, 12, 23, 2, 23]],
        "area": 200,
        "iscrowd": 0,
    }
    assert (second["category_id"], second["segmentation"]) == (24, square)
    assert second["area"] == pytest.approx(200)


def test_area_of_polygon_and_rle_agree_with_pycocotools():
    triangle = [[10.0, 10.0, 50.0, 10.0, 10.0, 40.0]]
    rle = mask.merge(mask.frPyObjects(triangle, 48, 64))
    rle["counts"] = rle["counts"].decode()
    images = [{"id": 1}]
    areas = [
        coco_split(images, [[CleanBox(0, (10, 10, 50, 40), seg)]])["annotations"][0]["area"]
        for seg in (triangle, rle)
    ]
    assert areas[0] == pytest.approx(600)
    assert areas[1] == mask.area(rle)
    assert np.isclose(areas[0], areas[1], rtol=0.06)


def test_no_data_says_how_to_get_some(tmp_path):
    how = r"make data FORMAT=.*DATA=synthetic"
    with pytest.raises(DataError, match=f"does not exist: .*{how}"):
        load_coco_split(tmp_path / "none", "train")
    with pytest.raises(DataError, match=f"is empty: .*{how}"):
        load_coco_split(tmp_path, "train")
    (tmp_path / "thing").touch()
    with pytest.raises(DataError, match=f"train.json is missing: .*{how}"):
        load_coco_split(tmp_path, "train")
    with pytest.raises(DataError, match=f"no dataset.json, .*{how}"):
        load_dataset_info(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "cut short"),
        ("[]", "is no COCO file"),
        ('{"images": []}', "is no COCO file"),
    ],
)
def test_broken_annotations_are_named(tmp_path, text, message):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "val.json").write_text(text)
    with pytest.raises(DataError, match=rf"val\.json.*{message}"):
        load_coco_split(tmp_path, "val")


def test_unknown_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="unknown split 'dev': expected one of train, val, test"):
        load_coco_split(tmp_path, "dev")


def test_fingerprint_follows_content_only(source):
    root = source.root
    source.image("images/a.png")
    for split in ("train", "val", "test"):
        images = [{"id": 1, "file_name": "a.png"}] if split == "train" else []
        value = {"images": images, "annotations": [], "categories": []}
        source.json(f"annotations/{split}.json", value)
    before = fingerprint(root)
    source.text("report.md", "anything")
    assert fingerprint(root) == before
    source.image("images/a.png")
    assert fingerprint(root) != before
