from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from deepacc_d2.checkpoint import (
    build,
    build_from_checkpoint,
    read_checkpoint,
    with_later_keys,
)
from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning.core.config import compose_config, to_plain

TINY = [
    "pixel_mean=200",
    "pixel_std=50",
    "scale.backbone.stem_channels=8",
    "scale.backbone.res2_channels=8",
    "scale.fpn.out_channels=32",
    "scale.roi.fc_dims=[16,16]",
]


@pytest.fixture
def overrides() -> list[str]:
    return TINY


def config(tiny: list[str], *more: str) -> dict:
    return to_plain(compose_config("train", [*tiny, "data.root=unused", "out=unused", *more]))


def content(cfg: dict) -> dict:
    torch.manual_seed(1)
    return {"model": instantiate(cfg["model"]).state_dict(), "deepacc_config": cfg}


def test_a_saved_model_comes_back(overrides: list[str], tmp_path: Path) -> None:
    saved = content(config(overrides))
    torch.save(saved, tmp_path / "a.ckpt")
    model = build_from_checkpoint(read_checkpoint(tmp_path / "a.ckpt"), "a.ckpt")
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved["model"][name]), name


def test_missing_and_damaged_files(overrides: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.ckpt does not exist: pass CKPT="):
        read_checkpoint(tmp_path / "no.ckpt")
    path = tmp_path / "cut.ckpt"
    torch.save(content(config(overrides)), path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"cut\.ckpt is damaged or not a checkpoint"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"cut\.ckpt is damaged or not a checkpoint"):
        read_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(DataError, match="was not written by this project"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.float64(3.5), r"holds numpy\._core\.multiarray\.scalar besides weights.*float\(\)"),
        (np.arange(3), r"holds numpy\._core\.multiarray\._reconstruct besides weights.*tensors"),
        (Path("x"), r"holds pathlib\.\w+ besides weights.*plain numbers, texts and tensors"),
    ],
)
def test_the_reason_of_a_refusal_is_whole_and_true(
    tmp_path: Path, value: object, reason: str
) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"model": {}, "deepacc_config": {"seed": value}}, path)
    with pytest.raises(DataError, match=reason) as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)
    assert "damaged" not in str(told.value)
    assert "download" not in str(told.value)


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04K\x01.", b"PK\x03\x04junk", b"\x00" * 99])
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged or not a checkpoint \(.+\)$") as told:
        read_checkpoint(path)
    assert "\n" not in str(told.value)


class Evil:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_pickled_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Evil(), "deepacc_config": {}}, tmp_path / "evil.ckpt")
    with pytest.raises(DataError, match=r"holds print besides weights"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert "stranger" not in capsys.readouterr().out


def test_config_in_a_checkpoint_calls_only_model_parts(overrides: list[str]) -> None:
    saved = content(config(overrides))
    saved["deepacc_config"]["model"]["backbone"]["norm"] = {"_target_": "os.system", "command": "x"}
    with pytest.raises(ConfigError, match=r"wants to call 'os\.system'"):
        build_from_checkpoint(saved, "a.ckpt")


@pytest.mark.parametrize(
    "target",
    [
        "deepacc_d2.files.os.system",
        "deepacc_d2.files.write_text",
        "deepacc_d2.modeling.predictor.torch.load",
        "deepacc_d2.modeling.backbone.nn.Module",
        "detectron2.modeling.poolers.math",
        5,
    ],
)
def test_a_dotted_name_does_not_lead_out_of_the_model_parts(
    overrides: list[str], target: object
) -> None:
    saved = content(config(overrides))
    saved["deepacc_config"]["model"]["backbone"]["norm"] = {"_target_": target, "command": "x"}
    with pytest.raises(ConfigError, match=rf"wants to call '{target}'"):
        build_from_checkpoint(saved, "a.ckpt")


def test_other_class_count(overrides: list[str]) -> None:
    saved = content(config(overrides))
    saved["deepacc_config"]["model"]["roi_heads"]["num_classes"] = 80
    with pytest.raises(DataError, match=r"with 80 classes, not 24"):
        build_from_checkpoint(saved, "a.ckpt")


def test_weights_of_another_model(overrides: list[str]) -> None:
    saved = content(config(overrides))
    saved["deepacc_config"] = config(overrides, "experiment=retinanet")
    with pytest.raises(DataError, match="weights of another model"):
        build_from_checkpoint(saved, "a.ckpt")


@pytest.mark.parametrize("preset", ["baseline", "sep", "siamese_gia", "deepacc", "retinanet"])
def test_builds_what_hydra_builds(overrides: list[str], preset: str) -> None:
    node = config(overrides, f"experiment={preset}")["model"]
    torch.manual_seed(3)
    ours = build(node)
    torch.manual_seed(3)
    theirs = instantiate(node)
    assert repr(ours) == repr(theirs)
    weights = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_config_of_another_version(overrides: list[str]) -> None:
    saved = content(config(overrides))
    saved["deepacc_config"]["model"]["roi_heads"]["_target_"] = "deepacc_d2.modeling.NewHeads"
    with pytest.raises(DataError, match=r"a\.ckpt .*deepacc_d2\.modeling\.NewHeads"):
        build_from_checkpoint(saved, "a.ckpt")
    saved = content(config(overrides))
    saved["deepacc_config"]["model"]["roi_heads"]["wings"] = 2
    with pytest.raises(DataError, match=r"a\.ckpt .*wings"):
        build_from_checkpoint(saved, "a.ckpt")


def test_checkpoints_carry_their_kind_of_center(overrides: list[str], tmp_path: Path) -> None:
    torch.save(content(config(overrides, "experiment=deepacc")), tmp_path / "a.ckpt")
    model = build_from_checkpoint(read_checkpoint(tmp_path / "a.ckpt"), "a.ckpt")
    branch = model.roi_heads.box_predictor.inference_branch
    assert (branch.center, branch.center_share) == ("pair", 0.5)


def _older(node: Any) -> Any:
    """A config as it was written before there were pairs."""
    if not isinstance(node, dict):
        return node
    return {k: _older(v) for k, v in node.items() if k not in ("center", "center_share")}


def test_a_checkpoint_of_before_pairs_is_the_papers_letter(
    overrides: list[str], tmp_path: Path
) -> None:
    saved = content(config(overrides, "experiment=siamese_gia"))
    old = {**saved, "deepacc_config": _older(saved["deepacc_config"])}
    assert "center" not in str(old["deepacc_config"]).replace("detach_centers", "")
    torch.save(old, tmp_path / "old.ckpt")
    model = build_from_checkpoint(read_checkpoint(tmp_path / "old.ckpt"), "old.ckpt")
    branch = model.roi_heads.box_predictor.inference_branch
    assert (branch.center, branch.center_share) == ("single", 1.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved["model"][name]), name


@pytest.mark.parametrize("preset", ["siamese_gia", "sep", "retinanet"])
def test_configs_of_before_and_after_pairs_compare_alike(overrides: list[str], preset: str) -> None:
    now = config(overrides, f"experiment={preset}")
    assert with_later_keys(now) == now
    assert with_later_keys(_older(now)) == now
    pairs = config(overrides, "experiment=deepacc")
    assert with_later_keys(pairs) == pairs
    # What is no training's config gets nothing.
    assert with_later_keys({"preset": "x"}) == {"preset": "x"}
