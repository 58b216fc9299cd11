from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.dataset import (
    ChromosomeDataset,
    read_info,
    read_split,
    to_dicts,
)
from deepacc_d2.errors import DataError

INFO = {
    "name": "tiny",
    "fingerprint": "abc",
    "pixel_mean": [200.5],
    "pixel_std": [40.25],
    "counts": {"train": 2, "val": 1},
}


def _coco() -> dict[str, Any]:
    return {
        "images": [
            {"id": 5, "file_name": "a.jpg", "width": 64, "height": 48, "case_id": "p1"},
            {"id": 2, "file_name": "b.jpg", "width": 70, "height": 50, "batch_id": "s1"},
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 1, "bbox": [2, 3, 20, 10]},
            {"id": 2, "image_id": 2, "category_id": 24, "bbox": [0.5, 1, 2, 3.25]},
            {"id": 3, "image_id": 5, "category_id": 23, "bbox": [40, 5, 20, 20]},
        ],
        "categories": coco_categories(),
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps(INFO))
    (tmp_path / "annotations" / "train.json").write_text(json.dumps(_coco()))
    return tmp_path


def _rewrite(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    coco = _coco()
    change(coco)
    (root / "annotations" / "train.json").write_text(json.dumps(coco))


def test_info(root: Path) -> None:
    info = read_info(str(root))
    assert (info.root, info.name, info.fingerprint) == (root, "tiny", "abc")
    assert (info.pixel_mean, info.pixel_std) == (200.5, 40.25)
    assert info.counts == {"train": 2, "val": 1, "test": 0}


def test_dicts(root: Path) -> None:
    first, second = to_dicts(read_split(root, "train"), root)
    assert first["file_name"] == str(root / "images" / "a.jpg")
    assert (first["image_id"], first["height"], first["width"]) == (5, 48, 64)
    assert (first["case_id"], first["batch_id"]) == ("p1", None)
    assert (second["case_id"], second["batch_id"]) == (None, "s1")
    np.testing.assert_array_equal(first["boxes"], [[2, 3, 22, 13], [40, 5, 60, 25]])
    np.testing.assert_array_equal(first["classes"], [0, 22])
    np.testing.assert_array_equal(second["boxes"], [[0.5, 1, 2.5, 4.25]])
    np.testing.assert_array_equal(second["classes"], [23])
    assert first["boxes"].dtype == np.float32
    assert first["classes"].dtype == np.int64


def test_image_without_annotations_keeps_its_place(root: Path) -> None:
    coco = _coco()
    coco["annotations"] = []
    first, second = to_dicts(coco, root)
    for item in (first, second):
        assert item["boxes"].shape == (0, 4)
        assert item["classes"].shape == (0,)


def test_dataset_maps_when_asked() -> None:
    dataset = ChromosomeDataset([{"n": 1}, {"n": 2}], lambda item: item["n"] * 10)
    assert len(dataset) == 2
    assert [dataset[0], dataset[1]] == [10, 20]


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist: .*make data .*DATA=synthetic"):
        read_info(tmp_path / "nowhere")


def test_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is empty: .*make data .*DATA=synthetic"):
        read_info(tmp_path)


def test_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"holds no dataset\.json.*make data .*DATA=synthetic"):
        read_info(tmp_path)


def test_info_cut_short(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps(INFO)[:30])
    with pytest.raises(DataError, match=r"dataset\.json is no complete JSON.*cut short"):
        read_info(root)


@pytest.mark.parametrize("key", ["name", "fingerprint", "pixel_mean", "pixel_std", "counts"])
def test_info_without_a_field(root: Path, key: str) -> None:
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in INFO.items() if k != key}))
    with pytest.raises(DataError, match=rf"dataset\.json lacks or garbles '{key}'"):
        read_info(root)


def test_info_with_a_garbled_field(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({**INFO, "counts": {"train": "many"}}))
    with pytest.raises(DataError, match=r"garbles .*many"):
        read_info(root)


def test_missing_split(root: Path) -> None:
    with pytest.raises(DataError, match=r"val\.json is missing: there is no val split"):
        read_split(root, "val")


def test_split_cut_short(root: Path) -> None:
    path = root / "annotations" / "train.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DataError, match=r"train\.json is no complete JSON.*cut short"):
        read_split(root, "train")


def test_split_of_bytes_that_are_no_text(root: Path) -> None:
    (root / "annotations" / "train.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"train\.json is no complete JSON"):
        read_split(root, "train")


def test_split_that_is_a_list(root: Path) -> None:
    (root / "annotations" / "train.json").write_text("[1, 2]")
    with pytest.raises(DataError, match=r"train\.json is no COCO file"):
        read_split(root, "train")


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_split_without_a_section(root: Path, key: str) -> None:
    _rewrite(root, lambda coco: coco.pop(key))
    with pytest.raises(
        DataError, match=rf"train\.json is no COCO file: it must hold a list of {key}"
    ):
        read_split(root, "train")


def test_categories_in_another_order(root: Path) -> None:
    def swap(coco: dict[str, Any]) -> None:
        coco["categories"][22]["name"], coco["categories"][23]["name"] = "Y", "X"

    _rewrite(root, swap)
    with pytest.raises(DataError, match=r"category \(23, 'X'\) is not one of ids 1\.\.24"):
        read_split(root, "train")


def test_categories_of_another_data_set(root: Path) -> None:
    _rewrite(root, lambda coco: coco.update(categories=[{"id": 1, "name": "person"}]))
    with pytest.raises(DataError, match=r"train\.json: category .* is not one of ids 1\.\.24"):
        read_split(root, "train")


@pytest.mark.parametrize("categories", [[{"id": 1}], [{"id": "one", "name": "1"}], 5, ["1"]])
def test_garbled_categories(root: Path, categories: object) -> None:
    _rewrite(root, lambda coco: coco.update(categories=categories))
    with pytest.raises(DataError, match=r"train\.json(: a category lacks| is no COCO)"):
        read_split(root, "train")


def test_split_without_images(root: Path) -> None:
    _rewrite(root, lambda coco: coco.update(images=[]))
    with pytest.raises(DataError, match=r"train\.json lists no image: .*DATA=synthetic"):
        read_split(root, "train")


@pytest.mark.parametrize("category", [0, 25, -1])
def test_unknown_category_id(root: Path, category: int) -> None:
    coco = _coco()
    coco["annotations"][1]["category_id"] = category
    with pytest.raises(DataError, match=f"annotation 2 names image 2, category {category}"):
        to_dicts(coco, root)


def test_annotation_of_an_unknown_image(root: Path) -> None:
    coco = _coco()
    coco["annotations"][0]["image_id"] = 99
    with pytest.raises(DataError, match="annotation 1 names image 99, category 1: no such image"):
        to_dicts(coco, root)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("annotations", "bbox", None),
        ("annotations", "bbox", [1, 2, 3]),
        ("annotations", "category_id", "X"),
        ("images", "width", None),
        ("images", "file_name", ...),
        ("annotations", "image_id", ...),
    ],
)
def test_garbled_entries(root: Path, section: str, key: str, value: object) -> None:
    coco = _coco()
    if value is ...:
        del coco[section][0][key]
    else:
        coco[section][0][key] = value
    with pytest.raises(DataError, match=r"lacks or garbles .*data-check"):
        to_dicts(coco, root)


def test_an_image_id_given_twice_is_refused(root: Path) -> None:
    coco = _coco()
    coco["images"][1]["id"] = 5
    coco["annotations"].pop(1)
    with pytest.raises(DataError, match=r"image id 5 is given twice, the second time to b\.jpg"):
        to_dicts(coco, root)


def test_a_category_id_given_twice_is_refused(root: Path) -> None:
    coco = _coco()
    coco["categories"].append(dict(coco["categories"][3]))
    (root / "annotations" / "train.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match="category given twice"):
        read_split(root, "train")
