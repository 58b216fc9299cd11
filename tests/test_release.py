from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate

from deepacc_d2 import release
from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.config import compose_config, to_plain

CARD = {key: f"the {key}" for key in release.CARD_KEYS}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    small = ["scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"]
    overrides = ["data.root=/home/someone/data", "out=/home/someone/run", "pixel_mean=1.0"]
    cfg = to_plain(compose_config("train", [*overrides, *small, "pixel_std=2.0"]))
    weights = instantiate(cfg["model"]).state_dict()
    return {"model": weights, "deepacc_config": cfg, "optimizer_states": [torch.ones(9)]}


def run(tmp_path: Path, content: dict[str, Any], card: Any, *more: str) -> None:
    torch.save(content, tmp_path / "best.ckpt")
    (tmp_path / "card.yaml").write_text(card if isinstance(card, str) else yaml.safe_dump(card))
    paths = ["--ckpt", str(tmp_path / "best.ckpt"), "--card", str(tmp_path / "card.yaml")]
    release.main([*paths, "--out", str(tmp_path / "new" / "small.ckpt"), *more])


def test_what_is_passed_on(tmp_path: Path, content: dict[str, Any]) -> None:
    chosen = {"karyotype": {"temperature": 1.5}, "selection": {"iou": 0.55}}
    (tmp_path / "c.json").write_text(json.dumps(chosen))
    run(tmp_path, content, CARD, "--calibration", str(tmp_path / "c.json"))
    passed = read_checkpoint(tmp_path / "new" / "small.ckpt")
    assert passed["card"] == CARD
    assert {key: passed[key] for key in chosen} == chosen
    assert "optimizer_states" not in passed
    assert "/home/someone" not in json.dumps(passed["deepacc_config"])
    size = (tmp_path / "new" / "small.ckpt").stat().st_size
    assert size < 0.6 * (tmp_path / "best.ckpt").stat().st_size
    model = build_from_checkpoint(passed, "small.ckpt").state_dict()
    for name, value in content["model"].items():
        found = model[name].numpy()
        assert found.dtype == value.numpy().dtype
        if value.ndim > 1:  # bfloat16 keeps 8 bits: half a unit of the last is 2^-9
            np.testing.assert_allclose(found, value.numpy(), rtol=2**-8, atol=1e-30)
        else:
            np.testing.assert_array_equal(found, value.numpy())


def test_a_card_must_tell_all(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="does not have data, limits"):
        release.release(content, {k: v for k, v in CARD.items() if k not in ("data", "limits")})


@pytest.mark.parametrize(
    ("card", "message"), [("- a\n", "no mapping"), ("a: [\n", "no YAML"), ("a: 1\n", "not have")]
)
def test_bad_cards(
    tmp_path: Path,
    content: dict[str, Any],
    card: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, content, card)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "new").exists()


def test_delta_can_be_chosen_afterwards(content: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="without inference branch"):
        release.release(content, CARD, delta=0.9)
    overrides = ["experiment=siamese_gia", "data.root=a", "out=b", "pixel_mean=1", "pixel_std=2"]
    cfg = to_plain(compose_config("train", overrides))
    passed = release.release({"model": {}, "deepacc_config": cfg}, CARD, delta=0.9)
    node = passed["deepacc_config"]["model"]["roi_heads"]["box_predictor"]["inference_branch"]
    assert (node["delta"], passed["deepacc_config"]["delta"]) == (0.9, 0.9)
    assert cfg["delta"] == 0.5
    assert passed["deepacc_config"]["center"] == "single"
    with pytest.raises(ConfigError, match=r"delta=1\.5"):
        release.release({"model": {}, "deepacc_config": cfg}, CARD, delta=1.5)
