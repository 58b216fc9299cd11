"""``make masks``: from a detector's checkpoint to one with instance masks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.detection.detector import load_detector
from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning import masks
from deepacc_lightning.core.config import compose_config, to_plain

SMALL = (
    *("pixel_mean=228", "pixel_std=45", "scale=lab", "data.root=unused", "out=unused"),
    *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *("scale.fpn.out_channels=16", "scale.roi.fc_dims=[16,16]", "scale.chromosome_size=32"),
    *("scale.rpn.pre_nms_topk=[60,60]", "scale.rpn.post_nms_topk=[20,20]"),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cfg = to_plain(compose_config("train", [*SMALL, "experiment=sep"]))
    torch.manual_seed(5)
    weights = instantiate(cfg["model"]).state_dict()
    path = tmp_path_factory.mktemp("model") / "tiny.ckpt"
    selection = {"min_foreground": 0.0}
    torch.save({"model": weights, "deepacc_config": cfg, "selection": selection}, path)
    return path


@pytest.fixture(scope="module")
def options(checkpoint: Path, tiny_data: Path) -> list[str]:
    small = ["masks.width=4", "images=3", "val_images=1", "drawn=1", "most=8", "lr=0.01"]
    run = ["epochs=4", "accelerator=cpu", "warmup_steps=1", "precision=32-true", "zoom=[1,1]"]
    return [f"ckpt={checkpoint}", f"data.root={tiny_data}", *small, *run]


@pytest.fixture(scope="module")
def finished(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "job"
    masks.run(compose_config("masks", [*options, f"out={out}"]))
    return out


def test_the_detector_stays_and_has_masks(finished: Path, checkpoint: Path) -> None:
    before, after = (read_checkpoint(p) for p in (checkpoint, finished / "checkpoints/best.ckpt"))
    for name, value in before["model"].items():
        assert torch.equal(value, after["model"][name])
    new = set(after["model"]) - set(before["model"])
    assert new
    assert all(name.startswith("instance_masks.") for name in new)
    assert after["selection"] == before["selection"]
    record = json.loads((finished / "masks.json").read_text())
    assert record["masks"] > 60  # of three images and a drawn one
    assert len(record["history"]) == 4
    assert 0 <= record["figures"]["iou"] <= 100


def test_a_detector_of_the_checkpoint_cuts_masks(finished: Path, checkpoint: Path) -> None:
    gray = render_metaphase(SyntheticConfig(seed=4), 0, 0)[0]
    plain, cutting = (
        load_detector(p, device="cpu") for p in (checkpoint, finished / "checkpoints/best.ckpt")
    )
    found = cutting.detect(gray)
    assert len(found.boxes)
    assert len(cutting.masks(gray, found)) == len(found.boxes)
    assert plain.instance_masks is None
    assert plain.masks(gray, found) == [None] * len(found.boxes)


def test_masks_are_taken_over_as_they_are(
    finished: Path, options: list[str], tmp_path: Path
) -> None:
    old = finished / "checkpoints" / "best.ckpt"
    taken = masks.run(
        compose_config("masks", [*options, f"start={old}", "epochs=0", f"out={tmp_path / 'b'}"])
    )
    before, after = (read_checkpoint(p) for p in (old, tmp_path / "b/checkpoints/best.ckpt"))
    for name, value in before["model"].items():
        assert torch.equal(value, after["model"][name]), name
    record = json.loads((finished / "masks.json").read_text())["figures"]
    assert taken == pytest.approx(record, abs=0.02)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("epochs=0", ConfigError, "epochs=0: give at least 1"),
        ("images=0", ConfigError, "images=0: give at least 1, or null"),
        ("zoom=[2,1]", ConfigError, "zoom=.*two factors"),
        ("crowding.share=2", ConfigError, "share"),
        ("masks.width=0", ConfigError, "width >= 1"),
    ],
)
def test_bad_settings(
    options: list[str], tmp_path: Path, change: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        masks.run(compose_config("masks", [*options, f"out={tmp_path / 'c'}", change]))


def test_a_checkpoint_without_masks_gives_none(
    options: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    change = [f"start={checkpoint}", f"out={tmp_path / 'd'}"]
    with pytest.raises(DataError, match="has no instance masks"):
        masks.run(compose_config("masks", [*options, *change]))
