from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from deepacc_d2.detection.detector import Detector
from deepacc_d2.detection.network import Raw
from deepacc_d2.detection.runners import load_runner
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import ViewSettings
from deepacc_lightning import export
from deepacc_lightning.core.config import compose_config, to_plain


@pytest.fixture(scope="module")
def checkpoint(shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    options = [*shared_overrides, f"out={run}", "pixel_mean=228", "pixel_std=45"]
    cfg = to_plain(compose_config("train", [*options, "experiment=siamese_gia"]))
    torch.manual_seed(5)
    model: torch.nn.Module = instantiate(cfg["model"])
    path = run / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    torch.save({"model": model.state_dict(), "deepacc_config": cfg}, path)
    return path


def config(checkpoint: Path, *overrides: str) -> DictConfig:
    return compose_config("export", [f"ckpt={checkpoint}", *overrides])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is checked before anything is exported does not need the extra."""
    monkeypatch.setattr(export, "require", lambda *modules: None)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("format=tflite", r"FORMAT=tflite is unknown: choose onnx or openvino"),
        ("precision=fp8", r"PRECISION=fp8 is unknown: choose fp32, bf16, int8"),
        ("precision=int8", r"PRECISION=int8 is of FORMAT=openvino"),
        ("images=0", r"images=0: give at least 1"),
    ],
)
def test_bad_choices(checkpoint: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export.check_choice(config(checkpoint, override))


def test_where_it_goes(checkpoint: Path, tmp_path: Path) -> None:
    run = checkpoint.parent.parent
    assert export.output_path(config(checkpoint)) == run / "export" / "best-fp32.onnx"
    ov = "format=openvino"
    path = export.output_path(config(checkpoint, ov, "precision=int8", f"out={tmp_path}"))
    assert path == tmp_path / "best-int8.xml"
    with pytest.raises(ConfigError, match=r"FORMAT=openvino writes a \.xml file"):
        export.output_path(config(checkpoint, ov, f"out={tmp_path}/a.onnx"))
    (tmp_path / "a.bin").touch()
    with pytest.raises(ConfigError, match=r"a\.xml exists: choose another OUT"):
        export.output_path(config(checkpoint, ov, f"out={tmp_path}/a.xml"))
    again = config(checkpoint, ov, f"out={tmp_path}/a.xml", "overwrite=true")
    assert export.output_path(again) == tmp_path / "a.xml"


PLAIN = ViewSettings(8, 48, tone=False, normalize=False, fit_size=48)


def grays(count: int) -> list[Gray]:
    return [np.zeros((48, 48), dtype=np.uint8) for _ in range(count)]


def test_a_difference_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    boxes = np.array([[2, 2, 40, 30]], dtype=np.float32)
    probabilities = np.zeros((1, 25), dtype=np.float32)
    probabilities[0, [4, 24]] = 0.2, 0.8  # below the threshold: all proposals are compared

    def plain(_: Any) -> Raw:
        return boxes, probabilities

    def moved(_: Any) -> Raw:
        return boxes + 2, probabilities

    reference, other = Detector(plain, PLAIN), Detector(moved, PLAIN)
    assert export.check_parity(reference, reference, grays(2), exact=True).chromosomes == 2
    assert export.check_parity(reference, other, grays(1), exact=False).pixels == 2
    with pytest.raises(DataError, match=r"nothing was written"):
        export.check_parity(reference, other, grays(1), exact=True)
    assert "boxes within 2 px" in capsys.readouterr().out


class Truth:
    """A split of one image with one chromosome of class 5."""

    coco: ClassVar[dict[str, Any]] = {
        "images": [{"id": 1}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [2, 2, 18, 7]}],
    }

    def take(self, count: int | None) -> Truth:
        return self

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        return iter(grays(1))


def test_lost_accuracy_is_an_error(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = np.array([[2, 2, 20, 9]], dtype=np.float32)

    def sure(index: int) -> Any:
        return Detector(lambda _: (boxes, np.eye(25, dtype=np.float32)[[index]]), PLAIN)

    cfg = config(checkpoint, "format=openvino", "precision=int8")
    assert export.check_map(sure(4), sure(4), Truth(), cfg) == (100, 100)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"int8 loses 100\.00 points of mAP, more than max_loss"):
        export.check_map(sure(4), sure(5), Truth(), cfg)  # type: ignore[arg-type]
    assert export.check_map(sure(4), sure(5), None, cfg) is None
    assert "not measured for int8: pass DATA=" in capsys.readouterr().out


def test_an_onnx_file_on_drawn_images(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="make setup EXTRAS=export")
    pytest.importorskip("onnxruntime", reason="make setup EXTRAS=export")
    cfg = config(checkpoint, f"out={tmp_path}/a.onnx", "images=2")
    made = export.run(cfg)
    assert made.path == tmp_path / "a.onnx"
    assert made.parity.same
    assert (made.parity.images, made.map50) == (2, None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    assert load_runner(made.path).metadata["precision"] == "fp32"
    with pytest.raises(ConfigError, match=r"exists"):
        export.run(cfg)


def test_int8_on_a_data_set(checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    for name in ("onnx", "openvino", "nncf"):
        pytest.importorskip(name, reason="make setup EXTRAS=export")
    options = ["format=openvino", "precision=int8", "data=coco", f"data.root={tiny_data}"]
    options += [f"out={tmp_path}", "images=1", "calibration=2"]
    made = export.run(config(checkpoint, *options, "max_loss=100"))
    assert made.map50 is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best-int8.bin", "best-int8.xml"]
    assert "FakeQuantize" in made.path.read_text(encoding="utf-8")
    assert load_runner(made.path).metadata["precision"] == "int8"


@pytest.mark.usefixtures("installed")
def test_nothing_is_left_of_a_failed_export(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(core: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half a file")
        raise DataError("cannot be exported")

    monkeypatch.setattr(export, "write_onnx", fail)
    with pytest.raises(DataError, match="cannot be exported"):
        export.run(config(checkpoint, f"out={tmp_path}/a.onnx"))
    assert list(tmp_path.iterdir()) == []
