from __future__ import annotations

import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from fvcore.common.checkpoint import Checkpointer
from hydra.utils import instantiate
from omegaconf import DictConfig

from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning.core.config import compose_config, to_plain
from deepacc_lightning.training.initial_weights import InitialWeights, load_initial_weights


def config(tiny: list[str], *more: str) -> dict:
    return to_plain(compose_config("train", [*tiny, "pixel_mean=200", "pixel_std=50", *more]))


def content(cfg: dict) -> dict:
    torch.manual_seed(1)
    return {"model": instantiate(cfg["model"]).state_dict(), "deepacc_config": cfg}


class Evil:
    def __reduce__(self):
        return (print, ("code of a stranger ran",))


def test_initial_weights_load_what_fits(overrides: list[str], tmp_path: Path) -> None:
    saved = content(config(overrides))
    path = tmp_path / "base.ckpt"
    torch.save(saved, path)
    torch.manual_seed(2)
    model = instantiate(config(overrides, "experiment=sep")["model"])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert load_initial_weights(model, str(path)) == []
    after = model.state_dict()
    stem = "backbone.bottom_up.stem.conv1.weight"
    assert not torch.equal(after[stem], before[stem])
    for name, value in after.items():
        source = name.replace(".classification.", ".").replace(".regression.", ".")
        assert torch.equal(value, saved["model"][source]), name


def test_initial_weights_of_another_width_are_listed(overrides: list[str], tmp_path: Path) -> None:
    path = tmp_path / "base.ckpt"
    torch.save(content(config(overrides)), path)
    wide = config(overrides, "scale.fpn.out_channels=16")
    lines = load_initial_weights(instantiate(wide["model"]), str(path))
    lateral = [line for line in lines if line.startswith("backbone.fpn_lateral2.weight")]
    assert len(lateral) == 1
    assert "shape (32, 8, 1, 1) in the file, (16, 8, 1, 1) here" in lateral[0]
    assert not any("bottom_up" in line for line in lines)


def test_initial_weights_that_cannot_be_had(overrides: list[str], tmp_path: Path) -> None:
    model = instantiate(config(overrides)["model"])
    with pytest.raises(DataError, match="does not exist"):
        load_initial_weights(model, str(tmp_path / "none.pkl"))
    (tmp_path / "junk.pkl").write_bytes(b"not a pickle")
    with pytest.raises(DataError, match=r"junk\.pkl cannot be loaded .*init_weights="):
        load_initial_weights(model, str(tmp_path / "junk.pkl"))
    torch.save({"model": {}, "best": np.float64(81.5)}, tmp_path / "scalar.pth")
    with pytest.raises(DataError, match=r"holds numpy\._core\.multiarray\.scalar") as told:
        load_initial_weights(model, str(tmp_path / "scalar.pth"))
    assert "download" not in str(told.value)
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


ZOO = "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"
PREDICTOR = "roi_heads.box_predictor"


def paper(experiment: str, *more: str) -> DictConfig:
    fixed = ["scale=paper", "data=coco", "data.root=/nowhere", "init_weights=null"]
    pixels = ["pixel_mean=200", "pixel_std=50"]
    return compose_config("train", [f"experiment={experiment}", *fixed, *pixels, *more])


def test_model_zoo_names_and_shapes_are_the_papers() -> None:
    """At full size, of which the meta device holds only the shapes."""
    cfg = model_zoo.get_config(ZOO)
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        zoo = build_model(cfg).state_dict()
        ours = instantiate(paper("siamese_gia").model).state_dict()
    both = {name for name in ours if name in zoo and ours[name].shape == zoo[name].shape}
    head = {f"fc{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
    for name in head:
        shape = zoo[f"roi_heads.box_head.{name}"].shape
        for stream in ("classification", "regression"):
            assert ours[f"roi_heads.box_head.{stream}.{name}"].shape == shape
    assert set(zoo) - both == {
        *(f"roi_heads.box_head.{name}" for name in head),
        *(f"{PREDICTOR}.{kind}" for kind in ("cls_score.weight", "cls_score.bias")),
        *(f"{PREDICTOR}.{kind}" for kind in ("bbox_pred.weight", "bbox_pred.bias")),
    }
    for part in ("backbone.bottom_up.", "backbone.fpn_lateral2.", "proposal_generator.rpn_head."):
        assert any(name.startswith(part) for name in both)
    assert {name for name in ours if not name.startswith("roi_heads.")} <= both


def thin_zoo_file(path: Path) -> dict[str, torch.Tensor]:
    """Writes a checkpoint as Detectron2's model zoo does, of its R-101-FPN with few channels."""
    cfg = model_zoo.get_config(ZOO)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 2
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32, 16
    torch.manual_seed(4)
    weights = build_model(cfg).state_dict()
    arrays = {name: torch.randn_like(value).numpy() for name, value in weights.items()}
    # Files of 2019 hold these; now they are computed.
    anchors = {f"proposal_generator.anchor_generator.cell_anchors.{n}": n for n in range(5)}
    content = {**arrays, **{name: np.zeros((3, 4), np.float32) for name in anchors}}
    path.write_bytes(pickle.dumps({"model": content, "__author__": "Detectron2 Model Zoo"}))
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


THIN = (
    "scale.backbone.stem_channels=8",
    "scale.backbone.res2_channels=8",
    "scale.fpn.out_channels=32",
    "scale.roi.fc_dims=[16,16]",
)


def test_model_zoo_faster_rcnn_loads_where_shapes_agree(tmp_path: Path) -> None:
    zoo = thin_zoo_file(tmp_path / "model_final_f6e8b1.pkl")
    model = instantiate(paper("siamese_gia", *THIN).model)
    lines = load_initial_weights(model, str(tmp_path / "model_final_f6e8b1.pkl"))
    assert sorted(lines) == [
        f"{PREDICTOR}.bbox_pred.bias: shape (320,) in the file, (96,) here",
        f"{PREDICTOR}.bbox_pred.weight: shape (320, 16) in the file, (96, 16) here",
        f"{PREDICTOR}.cls_score.bias: only in the file, no place for it here",
        f"{PREDICTOR}.cls_score.weight: only in the file, no place for it here",
        f"{PREDICTOR}.inference_branch.bias: not in the file",
        f"{PREDICTOR}.margin_branch.weight: not in the file",
    ]
    loaded = 0
    for name, value in model.state_dict().items():
        source = name.replace(".classification.", ".").replace(".regression.", ".")
        if name.startswith(PREDICTOR):
            continue
        assert torch.equal(value, zoo[source]), name
        loaded += 1
    assert loaded == len(zoo) - 4 + 4  # less the predictor's, and the head's four twice


def test_first_layer_of_another_width_is_listed(tmp_path: Path) -> None:
    thin_zoo_file(tmp_path / "zoo.pkl")
    model = instantiate(paper("sep", *THIN[:3], "scale.roi.fc_dims=[16,24]").model)
    before = model.roi_heads.box_head.regression.fc2.weight.clone()
    lines = load_initial_weights(model, str(tmp_path / "zoo.pkl"))
    assert "roi_heads.box_head.fc2.weight: only in the file, no place for it here" in lines
    for stream in ("classification", "regression"):
        assert f"roi_heads.box_head.{stream}.fc2.weight: not in the file" in lines
    assert not any("fc1" in line for line in lines)
    assert torch.equal(model.roi_heads.box_head.regression.fc2.weight, before)


def test_many_weights_without_a_place_are_counted(overrides: list[str], tmp_path: Path) -> None:
    saved = content(config(overrides))
    extra = {f"mask_head.layer{n:02d}.weight": torch.zeros(1) for n in range(40)}
    torch.save({"model": {**saved["model"], **extra}}, tmp_path / "masks.pth")
    model = instantiate(config(overrides)["model"])
    lines = load_initial_weights(model, str(tmp_path / "masks.pth"))
    assert len(lines) == 12
    assert lines[0] == "mask_head.layer00.weight: only in the file, no place for it here"
    assert lines[-1] == "29 more: only in the file, no place for them here"


@pytest.mark.parametrize("preset", ["siamese_gia", "siamese"])
def test_margin_branch_starts_from_a_linear_classifier(
    overrides: list[str], tmp_path: Path, preset: str
) -> None:
    saved = content(config(overrides, "experiment=sep"))
    torch.save(saved, tmp_path / "sep.ckpt")
    model = instantiate(config(overrides, f"experiment={preset}")["model"])
    lines = load_initial_weights(model, str(tmp_path / "sep.ckpt"))
    classifier = saved["model"][f"{PREDICTOR}.cls_score.weight"]
    branch = model.roi_heads.box_predictor.margin_branch
    missing = [f"{PREDICTOR}.inference_branch.bias: not in the file"]
    if preset == "siamese":
        assert torch.equal(branch.weight, classifier)
        assert torch.equal(branch.bias, saved["model"][f"{PREDICTOR}.cls_score.bias"])
    else:
        length = classifier.square().sum(dim=1, keepdim=True).sqrt()
        torch.testing.assert_close(branch.weight.detach() * length, classifier)
        missing.append(f"{PREDICTOR}.cls_score.bias: only in the file, no place for it here")
    assert lines == missing
    shared = "roi_heads.box_head.classification.fc1.weight"
    assert torch.equal(model.state_dict()[shared], saved["model"][shared])


def test_checkpoint_of_ours_is_complete_for_deepacc(overrides: list[str], tmp_path: Path) -> None:
    cfg = config(overrides, "experiment=siamese_gia")
    saved = content(cfg)
    torch.save(saved, tmp_path / "a.ckpt")
    torch.manual_seed(7)
    model = instantiate(cfg["model"])
    assert load_initial_weights(model, str(tmp_path / "a.ckpt")) == []
    strict = build_from_checkpoint(read_checkpoint(tmp_path / "a.ckpt"), "a.ckpt")
    for loaded in (model, strict):
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, saved["model"][name]), name


def test_model_zoo_pickle_with_code_is_refused(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Evil(), "__author__": "test"}))
    model = instantiate(config(overrides)["model"])
    with pytest.raises(DataError, match=r"evil\.pkl cannot be loaded .*builtins\.print.*refused"):
        load_initial_weights(model, str(tmp_path / "evil.pkl"))
    assert "stranger" not in capsys.readouterr().out


def test_fvcore_still_calls_what_is_overridden() -> None:
    """Files of strangers would be read without the checks, if it came to call other methods."""
    own = {name for name in vars(InitialWeights) if callable(vars(InitialWeights)[name])}
    assert own == {"_load_file", "_torch_load", "_log_incompatible_keys"}
    source = inspect.getsource(DetectionCheckpointer) + inspect.getsource(Checkpointer)
    for name in own:
        assert f"self.{name}(" in source or f"super().{name}(" in source, name
