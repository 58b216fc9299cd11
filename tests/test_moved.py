"""Old names of moved classes: each leads to a class that exists, and old checkpoints still load."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.moved import MOVED, present_name, with_present_names
from deepacc_lightning.core.config import compose_config, to_plain

# What runs from before the move name, as their config.yaml has it.
OLD_TARGETS = [
    "deepacc_d2.data.crowding.RandomCrowding",
    "deepacc_d2.data.degrade.RandomFocus",
    "deepacc_d2.data.transforms.ResizeToChromosomes",
    "deepacc_d2.modeling.sampling.ChromosomeRPN",
    "deepacc_lightning.callbacks.ProgressBar",
    "deepacc_lightning.csv_logger.CSVLogger",
    "deepacc_lightning.loggers.WandbLogger",
    "deepacc_lightning.stopping.TimedCheckpoint",
]


@pytest.mark.parametrize("old", OLD_TARGETS)
def test_an_old_name_leads_to_a_class(old: str) -> None:
    module, _, name = present_name(old).rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)
    assert present_name(present_name(old)) == present_name(old)


def test_every_entry_is_tried() -> None:
    assert all(any(old.startswith(m) for old in OLD_TARGETS) for m in MOVED)


def test_a_name_that_only_begins_alike_stays() -> None:
    mine = "deepacc_d2.data.transforms_of_mine.A"
    assert present_name(mine) == mine


def test_only_targets_change() -> None:
    node: dict[str, Any] = {
        "a": [
            {"_target_": "deepacc_d2.data.degrade.RandomJpeg", "note": "deepacc_d2.data.degrade"}
        ],
        "b": 1,
    }
    assert with_present_names(node) == {
        "a": [
            {
                "_target_": "deepacc_d2.data.augment.degrade.RandomJpeg",
                "note": "deepacc_d2.data.degrade",
            }
        ],
        "b": 1,
    }


def test_no_config_of_today_has_an_old_name() -> None:
    for path in (Path(__file__).parents[1] / "conf").rglob("*.yaml"):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert with_present_names(node) == node, path


def test_a_checkpoint_of_before_the_move_loads(tmp_path: Path) -> None:
    tiny = [
        *("experiment=siamese_gia", "pixel_mean=200", "pixel_std=50"),
        *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
        *("scale.fpn.out_channels=32", "scale.roi.fc_dims=[16,16]"),
        *("data.root=unused", "out=unused"),
    ]
    config = to_plain(compose_config("train", tiny))
    new = config["model"]["proposal_generator"]["_target_"]
    assert new == "deepacc_d2.modeling.ChromosomeRPN"
    config["model"]["proposal_generator"]["_target_"] = "deepacc_d2.modeling.sampling.ChromosomeRPN"
    model = build_from_checkpoint(
        {"deepacc_config": _today(config), "model": _weights(config)}, "a"
    )
    path = tmp_path / "old.ckpt"
    torch.save({"deepacc_config": config, "model": model.state_dict()}, path)
    again = build_from_checkpoint(read_checkpoint(path), path)
    assert type(again.proposal_generator).__name__ == "ChromosomeRPN"
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def _today(config: dict[str, Any]) -> dict[str, Any]:
    today: dict[str, Any] = with_present_names(config)
    return today


def _weights(config: dict[str, Any]) -> dict[str, Any]:
    from deepacc_d2.checkpoint import build

    torch.manual_seed(0)
    weights: dict[str, Any] = build(_today(config)["model"]).state_dict()
    return weights
