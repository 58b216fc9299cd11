"""Files that annotation tools' own libraries wrote; see ``third_party/make.py``."""

from __future__ import annotations

import json
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
        ("datumaro/yolo", "obj_train_data/cell.png", (UPRIGHT, set())),
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


def test_what_tools_read_of_ours_is_what_is_written_today(source, tmp_path):
    """``third_party/read.py`` has given ``ours/train.json`` to the tools' libraries."""
    shutil.copytree(FILES / "labelme", source.root, dirs_exist_ok=True)
    source.image("cell.png")
    convert("labelme", source.root, tmp_path / "out", ratios="1:0:0")
    today = load_coco_split(tmp_path / "out", "train")
    given = json.loads((FILES / "ours" / "train.json").read_text("utf-8"))
    for content in (today, given):
        del content["images"][0]["sha256"]  # the test draws an image of its own
    assert today["annotations"] == [
        {**one, "bbox": pytest.approx(one["bbox"]), "area": pytest.approx(one["area"])}
        for one in given["annotations"]
    ]
    assert {**today, "annotations": []} == {**given, "annotations": []}


ROBOFLOW = ".rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9"
FOLDERS = {"train": "train", "valid": "val", "test": "test"}


def roboflow_coco(source, folder, name):
    """Class 0 stands for the project, and no box is of it; ids begin at 0 in every file."""
    names = ["chromosomes", *sorted(CLASSES)]
    kinds = [{"id": n, "name": name, "supercategory": "none"} for n, name in enumerate(names)]
    image = {"id": 0, "license": 1, "file_name": name, "width": 64, "height": 48}
    boxes = [
        {
            **{"id": n, "image_id": 0, "category_id": names.index(label), "iscrowd": 0},
            **{"bbox": [x, y, right - x, bottom - y], "area": 1, "segmentation": []},
        }
        for n, (label, (x, y, right, bottom)) in enumerate(UPRIGHT.items())
    ]
    content = {"images": [image], "annotations": boxes, "categories": kinds}
    source.json(f"{folder}/_annotations.coco.json", content)
    source.image(f"{folder}/{name}")


def roboflow_yolo(source, folder, name):
    """Its ``data.yaml`` leads out of the folder that it is in."""
    names = sorted(CLASSES)
    source.text(
        "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
        f"nc: 24\nnames: {names}\n\nroboflow:\n  license: CC BY 4.0\n",
    )
    lines = [
        f"{names.index(label)} {(x + right) / 128} {(y + bottom) / 96} {(right - x) / 64} "
        f"{(bottom - y) / 48}\n"
        for label, (x, y, right, bottom) in UPRIGHT.items()
    ]
    source.text(f"{folder}/labels/{Path(name).with_suffix('.txt')}", "".join(lines))
    source.image(f"{folder}/images/{name}")


def roboflow_voc(source, folder, name):
    source.image(f"{folder}/{name}")
    source.voc(f"{folder}/{Path(name).with_suffix('.xml')}", list(UPRIGHT.items()))


@pytest.mark.parametrize(
    ("fmt", "write"), [("coco", roboflow_coco), ("yolo", roboflow_yolo), ("voc", roboflow_voc)]
)
def test_roboflow_downloads_keep_their_split(source, tmp_path, fmt, write):
    for folder in FOLDERS:
        write(source, folder, f"{folder}1_jpg{ROBOFLOW}.jpg")
    source.text("README.roboflow.txt", "exported via roboflow.com")
    report = convert(fmt, source.root, tmp_path / "out", split="official")
    assert report["defects"] == {}
    for folder, split in FOLDERS.items():
        content = load_coco_split(tmp_path / "out", split)
        assert [i["file_name"] for i in content["images"]] == [f"{folder}1_jpg{ROBOFLOW}.jpg"]
        found = {CLASSES[a["category_id"] - 1]: a["bbox"] for a in content["annotations"]}
        wanted = {k: [x, y, r - x, b - y] for k, (x, y, r, b) in UPRIGHT.items()}
        assert found == {k: pytest.approx(v, abs=0.002) for k, v in wanted.items()}
