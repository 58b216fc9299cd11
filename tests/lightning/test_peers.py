"""Other detectors: the pictures that they are given, how they are trained, what is counted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import transforms as T

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.dataset import read_info, read_split, to_dicts
from deepacc_d2.data.union import DataSets
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.evaluation.types import ImagePrediction
from deepacc_d2.images.read import read_gray
from deepacc_lightning import peers
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.jobs import peer_job
from deepacc_lightning.jobs.peer_networks import (
    Detect,
    LibrePeer,
    OwnPeer,
    TorchvisionPeer,
    peer_of,
)
from deepacc_lightning.jobs.peer_speed import EAGER, by_turns
from deepacc_lightning.jobs.peer_torchvision import TORCHVISION, _turned, batches
from deepacc_lightning.jobs.peer_views import write_views


class Half(T.Augmentation):
    """Every other pixel, and boxes half as large."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape
        return T.ResizeTransform(height, width, height // 2, width // 2)


@pytest.fixture(scope="module")
def views(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("peers") / "views"
    write_views(out, DataSets.of(str(tiny_data)), [Half()], {"train": 4})
    return out


def test_views_are_a_data_set_and_one_of_yolo(views: Path, tiny_data: Path) -> None:
    info = read_info(views)
    assert (info.counts["train"], len(info.fingerprint)) == (4, 64)
    names = yaml.safe_load((views / "data.yaml").read_text())["names"]
    assert [names[n] for n in range(24)] == list(CLASSES)
    before = {image["id"]: image for image in read_split(tiny_data, "train")["images"]}
    for item in to_dicts(read_split(views, "train"), views):
        gray = read_gray(item["file_name"])
        old = before[item["image_id"]]
        assert gray.shape == (old["height"] // 2, old["width"] // 2)
        text = Path(item["file_name"].replace("/images/", "/labels/")).with_suffix(".txt")
        rows = np.loadtxt(text, ndmin=2)
        assert rows[:, 0].tolist() == item["classes"].tolist()
        middle = rows[:, 1:3] * gray.shape[::-1]
        size = rows[:, 3:] * gray.shape[::-1]
        found = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
        np.testing.assert_allclose(found, item["boxes"], atol=0.01)


def test_boxes_of_views_follow_the_images(views: Path, tiny_data: Path) -> None:
    old = {a["id"]: a for a in read_split(tiny_data, "test")["annotations"]}
    new = read_split(views, "test")["annotations"]
    assert len(new) == len(old)
    for a, b in zip(old.values(), new, strict=True):
        np.testing.assert_allclose(b["bbox"], np.array(a["bbox"]) / 2, rtol=0.02, atol=0.6)


@pytest.mark.parametrize("number", range(8))
def test_boxes_follow_each_symmetry(number: int) -> None:
    image = torch.zeros(20, 30)
    image[3:7, 12:25] = 1
    chance = torch.tensor([bool(number & bit) for bit in (1, 2, 4)])
    turned, boxes = _turned(image, torch.tensor([[12.0, 3.0, 25.0, 7.0]]), chance)
    rows, columns = turned.nonzero().T
    drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert boxes[0].tolist() == [float(v) for v in drawn]


def test_batches_show_every_image_once_a_pass(views: Path) -> None:
    stream = batches(views, 2, seed=3)
    first = [next(stream) for _ in range(2)]
    boxes = [len(target["boxes"]) for _, targets in first for target in targets]
    known = [len(item["boxes"]) for item in to_dicts(read_split(views, "train"), views)]
    assert sorted(boxes) == sorted(known)
    labels = torch.cat([target["labels"] for _, targets in first for target in targets])
    assert labels.min() >= 1, "0 is torchvision's background"
    assert labels.max() <= 24


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_sees_views_at_their_size(name: str) -> None:
    network = TORCHVISION[name](512)
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    for training in (True, False):
        images, (target,) = network.train(training).transform(
            [torch.full((3, 200, 300), 0.88)], [{"boxes": boxes, "labels": torch.tensor([1])}]
        )
        assert images.image_sizes == [(200, 300)]
        torch.testing.assert_close(target["boxes"], boxes)
        assert images.tensors[..., :200, :300].abs().max() < 1e-6  # less its mean


def test_the_score_with_the_least_error_is_chosen() -> None:
    image = {"id": 1, "width": 100, "height": 100}
    truth = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 20]}
    categories = [{"id": n + 1, "name": name} for n, name in enumerate(CLASSES)]
    coco: dict[str, Any] = {"images": [image], "annotations": [truth], "categories": categories}
    boxes = [[0, 0, 10, 20], [50, 50, 60, 70]]
    found = (boxes, [0.42, 0.27], [0, 3])
    # Right alone between the two scores; the highest such step of 0.05.
    assert peer_job.best_threshold(coco, [ImagePrediction(1, *found, *found)]) == 0.4


def test_names() -> None:
    presets = ["deepacc", "sep"]
    assert isinstance(peer_of("sep", presets), OwnPeer)
    assert isinstance(peer_of("faster_rcnn", presets), TorchvisionPeer)
    assert isinstance(peer_of("yolo9-t", presets), LibrePeer)
    peer_of("sep", presets).check()


def test_an_unknown_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("libreyolo", reason="make setup EXTRAS=peers")
    for name in ("yolo99-t", "yolo9-q", "faster_rcnn-n"):
        with pytest.raises(ConfigError, match=f"peer {name}: LibreYOLO trains no such detector"):
            LibrePeer(name).check()
    LibrePeer("yolo9-t").check()
    LibrePeer("dfine-n").check()
    monkeypatch.setitem(__import__("sys").modules, "libreyolo", None)
    with pytest.raises(ConfigError, match=r"peer yolo9-t needs LibreYOLO: make setup EXTRAS=peers"):
        LibrePeer("yolo9-t").check()


def options(data: Path, out: Path, *more: str) -> list[str]:
    small = ("image_size=160", "chromosome_size=16", "batch_size=2", "timed_images=1")
    return [f"data.root={data}", f"out={out}", "minutes=0.02", "threads=1", *small, *more]


def test_all_see_every_image_by_turns(views: Path) -> None:
    seen: list[tuple[str, int]] = []

    def entrant(name: str) -> Detect:
        def run(gray: np.ndarray, image_id: int) -> ImagePrediction:
            assert gray.ndim == 2
            seen.append((name, image_id))
            time.sleep(0.02 if name == "c" else 0)
            return ImagePrediction(image_id, [], [], [], [], [], [])

        return run

    seconds = by_turns({(n, EAGER): entrant(n) for n in "abc"}, views, count=2)
    images = [image["id"] for image in read_split(views, "test")["images"]][:1]
    first = [name for name, _ in seen[::3]]
    assert first == ["a", "b", "c"][: len(first)]
    assert all({name for name, _ in seen[i : i + 3]} == set("abc") for i in range(0, len(seen), 3))
    assert {image for _, image in seen[:6]} == set(images), "the first one is run once before"
    assert [len(each) for each in seconds.values()] == [len(seen) // 3 - 1] * 3
    assert min(seconds["c", EAGER]) >= 0.02 > max(seconds["a", EAGER])


def test_the_table_of_speed_is_against_the_first() -> None:
    text = peers.speed_table(
        {"ours": {EAGER: 0.2, "OpenVINO int8": 0.05}, "theirs": {EAGER: 0.4, "OpenVINO fp32": 0.1}}
    )
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]
    assert rows[0][1:] == ["PyTorch", "OpenVINO int8", "OpenVINO fp32"]
    assert rows[2:4] == [["`ours`", "1.00", "4.00", "-"], ["`theirs`", "0.50", "-", "2.00"]]
    assert "`ours` in PyTorch took 0.200 s" in text


@pytest.mark.slow
def test_a_peer_is_trained_measured_and_not_trained_again(tiny_data: Path, tmp_path: Path) -> None:
    words = options(tiny_data, tmp_path, "peers=[faster_rcnn_mobilenet]", "accelerator=cpu")
    facts = peers.run(compose_config("peers", words))["faster_rcnn_mobilenet"]
    assert facts["train"]["images_seen"] >= 2
    assert 0.3 < facts["train"]["seconds"] < 60
    assert facts["detect"]["metrics"]["map50"] >= 0
    assert facts["detect"]["peak_gib"] > 0.1
    assert "`faster_rcnn_mobilenet`" in (tmp_path / "peers.md").read_text()
    record = json.loads((tmp_path / "peers.json").read_text())
    assert record["settings"]["threads"] == 1
    assert 0 < record["speed"]["faster_rcnn_mobilenet"]["PyTorch"] < 60
    weights = tmp_path / "faster_rcnn_mobilenet" / "weights.pt"
    written = weights.stat().st_mtime_ns
    peers.run(compose_config("peers", words))
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match=r"holds peers of threads=1, not 2"):
        peers.run(compose_config("peers", [*words, "threads=2"]))


@pytest.mark.slow
def test_a_peer_that_fails_says_why(tiny_data: Path, tmp_path: Path) -> None:
    words = options(tiny_data, tmp_path, "peers=[sep]", "accelerator=cpu", "batch_size=0")
    with pytest.raises(ConfigError, match="minutes, threads, batch_size"):
        peers.run(compose_config("peers", words))
    words = options(tiny_data, tmp_path, "peers=[faster_rcnn]", "accelerator=cpu")
    (tmp_path / "views").mkdir()
    with pytest.raises(UserError, match=r"peer faster_rcnn: train failed, see .*train\.log"):
        peers.run(compose_config("peers", words))
