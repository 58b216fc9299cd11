from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.convert import convert
from deepacc_d2.data.dataset import read_info, read_split
from deepacc_d2.data.union import DataSets
from deepacc_d2.data.validate import validate
from deepacc_d2.errors import ConfigError, DataError

# By split, (file name, case) of each image.
Layout = dict[str, list[tuple[str, str]]]
PUBLIC: Layout = {
    "train": [("1.png", "a"), ("2.png", "a"), ("3.png", "b")],
    "val": [("4.png", "c")],
    "test": [("5.png", "d"), ("6.png", "d")],
}
OWN: Layout = {"train": [("1.png", "own1"), ("2.png", "own2")], "val": [("9.png", "own3")]}


def make_set(root: Path, layout: Layout, *, seed: int) -> Path:
    """Writes a set of random images; box k of image i is of class k and at x = 10 * i + k."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    number, train = 0, []
    for split, own in layout.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for name, case in own:
            number += 1
            height, width = rng.integers(20, 40, 2)
            low, high = (0, 120) if seed % 2 else (100, 256)
            pixels = rng.integers(low, high, (height, width)).astype(np.uint8)
            assert cv2.imwrite(str(root / "images" / name), pixels)
            train += [pixels.ravel()] if split == "train" else []
            images.append(
                {
                    **{"id": number, "file_name": name, "width": int(width), "height": int(height)},
                    **{"case_id": case, "batch_id": None, "sha256": f"{seed}-{name}"},
                }
            )
            for k in range(2):
                box = [10 * number + k, 1, 5, 6]
                own_id = len(annotations) + 1
                annotations.append(
                    {"id": own_id, "image_id": number, "category_id": k + 1, "bbox": box}
                )
        coco = {"images": images, "annotations": annotations, "categories": coco_categories()}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(coco))
    gray = np.concatenate(train or [np.zeros(1)])
    info = {
        **{"name": root.name, "fingerprint": f"{seed:064d}"},
        **{"pixel_mean": [float(gray.mean())], "pixel_std": [float(gray.std())]},
        "counts": {split: len(own) for split, own in layout.items()},
    }
    (root / "dataset.json").write_text(json.dumps(info))
    return root


@pytest.fixture
def public(tmp_path: Path) -> Path:
    return make_set(tmp_path / "public", PUBLIC, seed=2)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_set(tmp_path / "deep" / "own", OWN, seed=1)


def _gray(root: Path) -> np.ndarray:
    names = [image["file_name"] for image in read_split(root, "train")["images"]]
    return np.concatenate([cv2.imread(str(root / "images" / n), 0).ravel() for n in names])


def test_one_set_is_read_as_it_is(public: Path) -> None:
    one = DataSets.of(str(public))
    assert one.info() == read_info(public)
    assert one.split("train") == read_split(public, "train")
    assert one.images == public / "images"
    fingerprint = read_info(public).fingerprint
    assert one.facts() == {"name": "public", "root": str(public), "fingerprint": fingerprint}


def test_every_image_keeps_its_file_and_its_boxes(public: Path, own: Path) -> None:
    both = DataSets.of([public, own])
    seen = []
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        coco = both.split(split)
        assert len(coco["images"]) == count
        assert [a["id"] for a in coco["annotations"]] == list(range(1, 2 * count + 1))
        for item, image in zip(both.dicts(coco), coco["images"], strict=True):
            path = Path(item["file_name"])
            assert path == both.images / image["file_name"]
            (wanted,) = [
                i
                for i in read_split(path.parents[1], split)["images"]
                if i["file_name"] == path.name
            ]
            assert image["sha256"] == wanted["sha256"]
            assert cv2.imread(str(path), 0).shape == (item["height"], item["width"])
            assert item["boxes"][:, 0].tolist() == [10 * wanted["id"], 10 * wanted["id"] + 1]
            assert item["classes"].tolist() == [0, 1]
            seen.append((image["id"], path))
    # Names and ids repeat in the sets, but not in the whole.
    assert len({number for number, _ in seen}) == len({path for _, path in seen}) == 9


def test_order_makes_no_difference_and_weights_do(public: Path, own: Path) -> None:
    one, other = DataSets.of([public, own]), DataSets.of([own, public])
    assert one.info().fingerprint == other.info().fingerprint
    assert one.split("train") == other.split("train")
    assert (one.info().name, other.info().name) == ("public+own", "own+public")
    assert DataSets.of([own, public], [1, 1]).info() == other.info()
    weighted = DataSets.of([public, own], [1, 3])
    assert weighted.info().fingerprint == DataSets.of([own, public], [3, 1]).info().fingerprint
    prints = {
        DataSets.of(roots, weights).info().fingerprint
        for roots in ([public, own], [public], [own])
        for weights in ([1.0] * len(roots), [0.5] * len(roots))
    }
    assert len(prints | {weighted.info().fingerprint}) == 7
    assert weighted.facts()["root"] == [str(public), str(own)]
    assert weighted.facts()["weights"] == [1, 3]


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (2, 1), (0, 1)])
def test_gray_levels_are_those_that_an_epoch_sees(
    public: Path, own: Path, weights: tuple[int, int]
) -> None:
    pixels = np.concatenate(
        [np.tile(_gray(r), w) for r, w in zip((public, own), weights, strict=True)]
    )
    info = DataSets.of([public, own], weights).info()
    assert info.pixel_mean == pytest.approx(pixels.mean())
    assert info.pixel_std == pytest.approx(pixels.std())
    assert info.counts == {"train": 3 * bool(weights[0]) + 2, "val": 2, "test": 2}


def test_a_split_needs_to_be_in_one_set(public: Path, tmp_path: Path) -> None:
    only_train = make_set(tmp_path / "more", {"train": [("1.png", "x")], "val": []}, seed=3)
    only_test = make_set(tmp_path / "other", {"test": [("1.png", "y")]}, seed=4)
    both = DataSets.of([only_train, public, only_test])
    assert both.info().counts == {"train": 4, "val": 1, "test": 3}
    assert Counter(n for n, _ in both.train_parts()) == {3: 1, 1: 1, 0: 1}
    with pytest.raises(DataError, match=r"none of .*more, .*other has a val split"):
        DataSets.of([only_train, only_test]).split("val")
    with pytest.raises(DataError, match=r"none of .*more, .*other has a train split"):
        DataSets.of([only_test, only_train], [1, 0]).info()
    with pytest.raises(DataError, match=r"val\.json lists no image: train on it together with"):
        DataSets.of(only_train).split("val")


def test_a_case_may_not_be_trained_on_here_and_tested_on_there(
    public: Path, tmp_path: Path
) -> None:
    mine = make_set(tmp_path / "mine", {"train": [("x.png", "d"), ("y.png", "c")]}, seed=1)
    message = r"case c is in train of \S+mine and in val of \S+public \(1 more cases alike\)"
    with pytest.raises(DataError, match=message):
        DataSets.of([public, mine]).info()
    assert DataSets.of([public, mine], cases="own").info().counts["train"] == 5
    # Not trained on, so of no harm.
    assert DataSets.of([public, mine], [1, 0]).info().counts["train"] == 3


def test_what_a_set_shares_within_itself_or_in_one_split_is_its_own(
    public: Path, tmp_path: Path
) -> None:
    layout = {"train": [("x.png", "a"), ("y.png", "e")], "test": [("z.png", "e")]}
    mine = make_set(tmp_path / "mine", layout, seed=1)
    assert DataSets.of([public, mine]).info().counts == {"train": 5, "val": 1, "test": 3}


def test_a_copied_image_is_found_whatever_its_case(public: Path, own: Path) -> None:
    path = own / "annotations" / "train.json"
    path.write_text(path.read_text().replace("1-2.png", "2-5.png"))
    message = r"image 2.png in train of \S+own is byte for byte 5.png in test of \S+public: take"
    with pytest.raises(DataError, match=message):
        DataSets.of([public, own], cases="own").info()


def test_a_set_named_twice_is_refused(public: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a data set is named twice in .*data\.weights"):
        DataSets.of([public, public.parent / "x" / ".." / "public"])
    copy = make_set(tmp_path / "copy", PUBLIC, seed=2)
    with pytest.raises(DataError, match="are copies of one data set"):
        DataSets.of([public, copy]).info()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1]}, r"data\.weights=\[1\]: 2 data set\(s\) need a list of as many"),
        ({"weights": 2}, r"data\.weights=2: 2 data set\(s\) need a list of as many"),
        ({"weights": [1, -1]}, "expected numbers of at least 0"),
        ({"weights": [0, 0]}, "and one above it"),
        ({"weights": [1, "a"]}, "expected numbers"),
        ({"weights": [1, float("inf")]}, "expected numbers"),
        ({"cases": "mine"}, r"data\.cases=mine: choose shared or own"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataSets.of(["/a", "/b"], **options)
    with pytest.raises(ConfigError, match="empty list"):
        DataSets.of([])


def test_an_annotation_without_its_image_is_named(public: Path, own: Path) -> None:
    path = own / "annotations" / "val.json"
    path.write_text(path.read_text().replace('"image_id": 3', '"image_id": 77'))
    with pytest.raises(DataError, match=r"annotation of val in .*own lacks or garbles 77"):
        DataSets.of([public, own]).info()


def test_a_set_converted_to_be_trained_on_only(tseng_source: Any, tmp_path: Path) -> None:
    convert("tseng2023", tseng_source.root, tmp_path / "mine", ratios="1:0:0")
    assert not any(finding.check.fatal for finding in validate(tmp_path / "mine"))
    public = make_set(tmp_path / "public", PUBLIC, seed=2)
    counts = DataSets.of([tmp_path / "mine", public]).info().counts
    assert counts == {"train": 23, "val": 1, "test": 2}
