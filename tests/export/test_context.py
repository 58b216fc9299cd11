"""A detector with cell context, exported, against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepacc_d2.checkpoint import build_from_checkpoint
from deepacc_d2.export.metadata import describe
from deepacc_d2.export.parity import compare
from deepacc_d2.export.runners import load_runner
from deepacc_d2.export.write import read_openvino, write_onnx, write_openvino
from deepacc_d2.prediction.core import TorchDetector
from deepacc_d2.prediction.select import SelectionSettings

EVERYTHING = SelectionSettings(min_foreground=0.0)
SIZES = ((96, 128), (131, 77), (200, 190))
CONTEXT = (
    "+context_node={_target_:deepacc_d2.modeling.CellContext,in_features:16,num_classes:24,"
    "width:16,layers:2,heads:2,iou:0.3}",
    "model.roi_heads.box_predictor.context=${context_node}",
)


def image(height: int, width: int) -> np.ndarray[Any, Any]:
    found = np.random.default_rng(height).integers(190, 255, (height, width), dtype=np.uint8)
    found[height // 3 : height // 2, width // 4 : width // 2] = 90
    return found


@pytest.fixture(scope="module")
def content(make_content: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    made = make_content("delta=0.1", "s=32", *CONTEXT, preset="deepacc")
    head = "roi_heads.box_predictor.context.head.weight"
    # As it is built it corrects nothing.
    made["model"][head] = torch.randn(made["model"][head].shape) * 2
    return made


@pytest.fixture(scope="module")
def exported(content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name, reason="make setup EXTRAS=export")
    folder = tmp_path_factory.mktemp("context")
    detector = TorchDetector(build_from_checkpoint(content, "tiny.ckpt"))
    torch.save(content, folder / "best.ckpt")
    multiple = detector.core.size_divisibility
    metadata = describe(content, folder / "best.ckpt", size_divisibility=multiple, precision="fp32")
    write_onnx(detector.core, folder / "a.onnx", metadata)
    write_openvino(read_openvino(folder / "a.onnx"), folder / "a.xml", metadata)
    return [folder / "a.onnx", folder / "a.xml"]


def test_onnx_and_openvino_give_what_pytorch_gives(
    content: dict[str, Any], exported: list[Path]
) -> None:
    detector = TorchDetector(build_from_checkpoint(content, "tiny.ckpt"))
    predictor: Any = detector.core.model.roi_heads.box_predictor
    expected = [detector(image(*size)) for size in SIZES]
    context, predictor.context = predictor.context, None
    without = [detector(image(*size)) for size in SIZES]
    predictor.context = context
    for (_, a), (_, b) in zip(expected, without, strict=True):
        assert 1 < (a[:, -1] < 0.999).sum() < len(a), "the context keeps all boxes, or none"
        assert np.abs(a - b).max() > 0.1
    for path in exported:
        runner = load_runner(path, threads=1)
        for size, found in zip(SIZES, expected, strict=True):
            parity = compare(found, runner(image(*size)), EVERYTHING)
            assert parity.chromosomes
            assert parity.same, parity


def test_an_image_of_which_no_box_is_kept(content: dict[str, Any], tmp_path: Path) -> None:
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name, reason="make setup EXTRAS=export")
    detector = TorchDetector(build_from_checkpoint(content, "tiny.ckpt"))
    predictor: Any = detector.core.model.roi_heads.box_predictor
    predictor.context.min_foreground = 1.0  # no box is that surely a chromosome
    _, expected = detector(image(96, 128))
    assert len(expected)
    assert (expected.argmax(axis=1) == 24).all()
    source = tmp_path / "best.ckpt"
    torch.save(content, source)
    multiple = detector.core.size_divisibility
    metadata = describe(content, source, size_divisibility=multiple, precision="fp32")
    write_onnx(detector.core, tmp_path / "a.onnx", metadata)
    write_openvino(read_openvino(tmp_path / "a.onnx"), tmp_path / "a.xml", metadata)
    for name in ("a.onnx", "a.xml"):
        _, found = load_runner(tmp_path / name, threads=1)(image(96, 128))
        assert np.allclose(found, expected, atol=1e-4)
