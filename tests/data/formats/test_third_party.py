"""Files that annotation tools' own libraries wrote; see ``third_party/make.py``."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.coco import load_coco_split
from deepacc_d2.data.convert import convert

FILES = Path(__file__).parent / "third_party"
UPRIGHT = {"1": (4, 5, 24, 13), "X": (30, 20, 44, 40)}
TURNED = cv2.boxPoints(((50, 12), (16, 6), 30))
WITH_TURNED = {**UPRIGHT, "2": (*TURNED.min(axis=0), *TURNED.max(axis=0))}


@pytest.mark.parametrize(
    ("folder", "image", "expected"),
    [
        ("labelme", "cell.png", (WITH_TURNED, {"joined", "enclosed"})),
        ("supervision/coco", "cell.png", (UPRIGHT, set())),
        ("supervision/voc", "cell.png", (UPRIGHT, set())),
        ("supervision/yolo", "images/cell.png", (UPRIGHT, set())),
        ("datumaro/coco_instances", "images/train/cell.png", (WITH_TURNED, {"enclosed"})),
        ("datumaro/voc_detection", "JPEGImages/cell.png", (WITH_TURNED, {"enclosed"})),
        ("label_studio/coco", "images/0a1b2c3d-cell.png", (UPRIGHT, set())),
        ("label_studio/voc", "images/0a1b2c3d-cell.png", (UPRIGHT, set())),
        ("label_studio/yolo", "images/0a1b2c3d-cell.png", (UPRIGHT, set())),
    ],
)
def test_files_of_tools_give_their_boxes(source, tmp_path, folder, image, expected):
    boxes, notes = expected
    fmt = folder.rsplit("/", 1)[-1].split("_", 1)[0]
    shutil.copytree(FILES / folder, source.root, dirs_exist_ok=True)
    source.image(image)
    # Supervision writes Pascal VOC as it was defined, counting pixels from 1
    one_based = folder == "supervision/voc"
    report = convert(fmt, source.root, tmp_path / "out", ratios="1:0:0", one_based=one_based)
    assert set(report["defects"]) == notes
    annotations = load_coco_split(tmp_path / "out", "train")["annotations"]
    found = {CLASSES[a["category_id"] - 1]: a["bbox"] for a in annotations}
    assert sorted(found) == sorted(boxes)
    for name, (left, top, right, bottom) in boxes.items():
        xywh = (left, top, right - left, bottom - top)
        assert found[name] == pytest.approx(xywh, abs=0.002), name
