from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning.checkpoint import (
    build_from_checkpoint,
    load_initial_weights,
    read_checkpoint,
)
from deepacc_lightning.config import compose_config, to_plain


def config(tiny: list[str], *more: str) -> dict:
    return to_plain(compose_config("train", [*tiny, "pixel_mean=200", "pixel_std=50", *more]))


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


class Evil:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_pickled_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": Evil(), "deepacc_config": {}}, tmp_path / "evil.ckpt")
    with pytest.raises(DataError, match="damaged or not a checkpoint"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert "stranger" not in capsys.readouterr().out


def test_config_in_a_checkpoint_calls_only_model_parts(overrides: list[str]) -> None:
    saved = content(config(overrides))
    saved["deepacc_config"]["model"]["backbone"]["norm"] = {"_target_": "os.system", "command": "x"}
    with pytest.raises(ConfigError, match=r"wants to call 'os\.system'"):
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


def test_initial_weights_load_what_fits(overrides: list[str], tmp_path: Path) -> None:
    saved = content(config(overrides))
    path = tmp_path / "base.ckpt"
    torch.save(saved, path)
    torch.manual_seed(2)
    model = instantiate(config(overrides, "experiment=sep")["model"])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    lines = load_initial_weights(model, str(path))
    after = model.state_dict()
    stem = "backbone.bottom_up.stem.conv1.weight"
    assert torch.equal(after[stem], saved["model"][stem])
    assert not torch.equal(after[stem], before[stem])
    # The separated head has other names than the shared one; Detectron2 matches by suffix.
    named = {line.split(":")[0] for line in lines}
    for name in after:
        if name in named:
            assert torch.equal(after[name], before[name]), name
    assert all(":" in line for line in lines)


def test_initial_weights_of_another_width_are_listed(overrides: list[str], tmp_path: Path) -> None:
    path = tmp_path / "base.ckpt"
    torch.save(content(config(overrides)), path)
    wide = config(overrides, "scale.fpn.out_channels=16")
    lines = load_initial_weights(instantiate(wide["model"]), str(path))
    assert any(line.startswith("backbone.fpn_lateral2") and "shape" in line for line in lines)
    assert not any("bottom_up" in line for line in lines)


def test_initial_weights_that_cannot_be_had(overrides: list[str], tmp_path: Path) -> None:
    model = instantiate(config(overrides)["model"])
    with pytest.raises(DataError, match="does not exist"):
        load_initial_weights(model, str(tmp_path / "none.pkl"))
    (tmp_path / "junk.pkl").write_bytes(b"not a pickle")
    with pytest.raises(DataError, match=r"junk\.pkl cannot be loaded .*init_weights="):
        load_initial_weights(model, str(tmp_path / "junk.pkl"))
    torch.save({"model": {"other": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="no weight that fits"):
        load_initial_weights(model, str(tmp_path / "other.pth"))


def test_model_zoo_pickle_of_arrays_loads(overrides: list[str], tmp_path: Path) -> None:
    saved = content(config(overrides))
    arrays = {k: v.numpy() for k, v in saved["model"].items()}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "test"}))
    model = instantiate(config(overrides)["model"])
    assert load_initial_weights(model, str(tmp_path / "zoo.pkl")) == []
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved["model"][name]), name


def test_model_zoo_pickle_with_code_is_refused(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Evil(), "__author__": "test"}))
    model = instantiate(config(overrides)["model"])
    with pytest.raises(DataError, match=r"evil\.pkl cannot be loaded .*builtins\.print.*refused"):
        load_initial_weights(model, str(tmp_path / "evil.pkl"))
    assert "stranger" not in capsys.readouterr().out
