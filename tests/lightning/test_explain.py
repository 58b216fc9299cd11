"""`make explain` end to end on a tiny trained checkpoint, and on bad input."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.read import read_image
from deepacc_lightning import explain, predict, train
from deepacc_lightning.core.cli import run_entry_point
from deepacc_lightning.core.config import compose_config

THRESHOLD = "score_threshold=0.02"


@pytest.fixture(scope="module")
def checkpoint(shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explained") / "run"
    # The scale s is small so that a model of one epoch is not sure of background everywhere.
    more = ["experiment=siamese_gia", "s=4", "delta=0.05", "test=false", f"out={out}"]
    train.run(compose_config("train", [*shared_overrides, *more]))
    return out / "checkpoints" / "last.ckpt"


def start(*overrides: str) -> explain.Explanation:
    return explain.run(compose_config("explain", [*overrides, THRESHOLD, "accelerator=cpu"]))


def record_of(root: Path, split: str = "test") -> tuple[Path, list[str]]:
    coco = json.loads((root / "annotations" / f"{split}.json").read_text())
    image = coco["images"][1]
    names = {c["id"]: c["name"] for c in coco["categories"]}
    held = [a["category_id"] for a in coco["annotations"] if a["image_id"] == image["id"]]
    return root / "images" / image["file_name"], sorted(names[c] for c in held)


def test_picture_and_numbers_lie_in_the_run_directory(
    checkpoint: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, classes = record_of(tiny_data)
    found = start(f"ckpt={checkpoint}", f"image={image}")
    folder = checkpoint.parent.parent / "explain"
    assert sorted(p.name for p in folder.iterdir()) == [f"{image.stem}.json", f"{image.stem}.png"]
    assert cv2.imread(str(folder / f"{image.stem}.png")).std() > 10
    content = json.loads((folder / f"{image.stem}.json").read_text())
    assert content["preset"] == "siamese_gia"
    assert content["delta"] == 0.05
    assert len(content["rows"]) == len(found) > 0
    assert len(content["local_centers"]) == 24
    # Its data set was found: what is not missed is matched.
    matched = [row["true_class"] for row in content["rows"] if row["detected"]]
    matched = [name for name in matched if name != "none"]
    assert sorted(matched + [m["class"] for m in content["missed"]]) == classes
    printed = capsys.readouterr().out
    assert f"picture          {folder / image.stem}.png" in printed
    assert "of 24 classes have a local center (score > 0.05)" in printed


def names(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["class"], row["class_by_box"], row["box"]) for row in rows]


@pytest.mark.parametrize("shipped", [True, False])
def test_it_shows_what_predict_did(
    shipped: bool, checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    image, _ = record_of(tiny_data)
    # A field larger than the spread: predict cuts it to that.
    field = np.full((700, 800), 235, dtype=np.uint8)
    gray = read_image(image).gray
    field[300 : 300 + gray.shape[0], 400 : 400 + gray.shape[1]] = gray
    path, options = tmp_path / "field.png", ["accelerator=cpu"]
    cv2.imwrite(str(path), field)
    if not shipped:
        content = torch.load(checkpoint, weights_only=True)
        selection = {"min_foreground": 0.01, "tta": 2}  # an untrained model is sure of nothing
        torch.save({**content, "selection": selection}, tmp_path / "model.ckpt")
        options.append(f"ckpt={tmp_path / 'model.ckpt'}")
    common = [f"images={path}", f"out={tmp_path / 'cells'}", "num_workers=0", "draw_workers=0"]
    predict.run(compose_config("predict", [*options, *common, "karyogram=[]", "overlay=false"]))
    (record,) = (
        content
        for content in (json.loads(p.read_text()) for p in (tmp_path / "cells").rglob("*.json"))
        if "chromosomes" in content
    )
    explain.run(compose_config("explain", [*options, f"image={path}", f"out={tmp_path}"]))
    content = json.loads((tmp_path / "field.json").read_text())
    assert content["view"] == record["view"]
    assert content["view"]["crop"] != [0, 0, 800, 700]
    detected = [row for row in content["rows"] if row["detected"]]
    assert len(detected) > 0
    assert names(detected) == names(record["chromosomes"])
    assert content["cell_context"] is shipped


def test_a_box_is_paired_with_the_proposal_that_is_a_chromosome() -> None:
    box = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    # Two on the first chromosome; the closer one was taken for none by the context.
    proposals = np.array([[90.0, 90, 99, 99], [0, 0, 10, 10], [0, 0, 10, 9], [51, 50, 60, 60]])
    of_boxes, of_proposals = explain.nearest(box, proposals, np.array([1.0, 1e-4, 0.99, 0.2]))
    assert (of_boxes.tolist(), of_proposals.tolist()) == ([0, 1], [2, 3])
    # More boxes than proposals: those without one are left out.
    few, own = explain.nearest(box, proposals[3:], np.array([0.9]))
    assert (few.tolist(), own.tolist()) == ([1], [0])


def test_an_image_from_elsewhere_has_no_truth_unless_its_data_set_is_named(
    checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    image, classes = record_of(tiny_data)
    copy = tmp_path / "a b.png"
    shutil.copy(image, copy)
    common = [f"ckpt={checkpoint}", f"image={copy}"]
    assert start(*common, f"out={tmp_path / 'one'}").true_classes is None
    found = start(*common, f"out={tmp_path / 'two.pdf'}", f"data.root={tiny_data}")
    assert found.gt_classes is not None
    assert len(found.gt_classes) == len(classes)
    assert (tmp_path / "one" / "a b.png").is_file()
    assert (tmp_path / "two.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "two.json").is_file()


def test_bad_input_is_reported_in_one_line_and_leaves_nothing(
    checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    image, _ = record_of(tiny_data)
    damaged, other = tmp_path / "damaged.png", tmp_path / "other.png"
    damaged.write_bytes(image.read_bytes()[:100])
    cv2.imwrite(str(other), np.full((50, 60), 200, dtype=np.uint8))
    out = f"out={tmp_path / 'out'}"
    cases: list[tuple[type[Exception], str, list[str]]] = [
        (DataError, r"nothing\.png cannot be read", [f"image={tmp_path / 'nothing.png'}"]),
        (DataError, "is a folder, not an image", [f"image={tmp_path}"]),
        (DataError, "is damaged", [f"image={damaged}"]),
        (DataError, "is not in data set", [f"image={other}", f"data.root={tiny_data}"]),
        (DataError, "does not exist", [f"image={other}", f"data.root={tmp_path / 'no'}"]),
        (DataError, "checkpoint .* does not exist", [f"image={image}", "ckpt=/no.ckpt"]),
        (ConfigError, "not 'aam'", [f"image={image}", "preset=aam"]),
        (ConfigError, "score_threshold", [f"image={image}", "score_threshold=2"]),
    ]
    for kind, match, overrides in cases:
        cfg = compose_config("explain", [f"ckpt={checkpoint}", out, *overrides])
        with pytest.raises(kind, match=match) as caught:
            explain.run(cfg)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_without_roi_heads_is_refused(
    shared_overrides: list[str], tmp_path: Path, tiny_data: Path
) -> None:
    overrides = [*shared_overrides, "experiment=retinanet", "pixel_mean=1.0", "pixel_std=1.0"]
    cfg = compose_config("train", overrides)
    config = train.to_plain(cfg)
    path = tmp_path / "retinanet.ckpt"
    weights = train.build_model(cfg).state_dict()
    torch.save({"model": weights, "deepacc_config": config}, path)
    with pytest.raises(ConfigError, match=r"a ChromosomeRetinaNet has no ROI heads"):
        start(f"ckpt={path}", f"image={record_of(tiny_data)[0]}", f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_a_failing_write_leaves_no_half_picture(tmp_path: Path) -> None:
    class Disk:
        def savefig(self, path: Path, **_: object) -> None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match=r"a\.png cannot be written \(No space left on device\)"):
        explain.write(tmp_path / "a.png", {}, Disk())
    assert list(tmp_path.iterdir()) == []


def test_command_exits_2_with_one_line(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [f"ckpt={checkpoint}", f"image={tmp_path / 'nothing.png'}"]
    monkeypatch.setattr(sys, "argv", ["explain.py", *arguments])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as caught:
        run_entry_point("explain", explain.main)
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: image {tmp_path / 'nothing.png'} cannot be read")
    assert "\n" not in error
