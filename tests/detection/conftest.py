"""Checkpoints of detectors small enough to be exported in a blink."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepacc_d2.checkpoint import build_from_checkpoint
from deepacc_d2.detection.export.write import read_openvino, write_onnx, write_openvino
from deepacc_d2.detection.metadata import describe
from deepacc_d2.detection.network import TorchDetector


@pytest.fixture(scope="session")
def make_content(make_content: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Makes the content of a checkpoint of a tiny model at 128 pixels."""
    return partial(make_content, "scale.image_size=128", scale="quick")


@pytest.fixture(scope="session")
def tiny_detector(make_content: Callable[..., dict[str, Any]]) -> TorchDetector:
    """A tiny DeepACC."""
    return TorchDetector(build_from_checkpoint(make_content(), "tiny.ckpt"))


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, make_content: Callable[..., dict[str, Any]]
) -> Path:
    """The file of a checkpoint of a tiny DeepACC, with settings that an export passes on."""
    path = tmp_path_factory.mktemp("checkpoint") / "best.ckpt"
    extra = {"karyotype": {"temperature": 1.5}, "card": {"name": "tiny"}}
    torch.save({**make_content(), **extra}, path)
    return path


def noise_image(height: int, width: int) -> np.ndarray[Any, Any]:
    """Returns light noise with a dark block."""
    found = np.random.default_rng(height).integers(190, 255, (height, width), dtype=np.uint8)
    found[height // 3 : height // 2, width // 4 : width // 2] = 90
    return found


@pytest.fixture(scope="session")
def make_image() -> Callable[[int, int], np.ndarray[Any, Any]]:
    """Makes an image in which a tiny model finds something."""
    return noise_image


def write_both(detector: TorchDetector, content: dict[str, Any], folder: Path) -> list[Path]:
    """Exports a detector to ONNX and OpenVINO."""
    source = folder / "best.ckpt"
    torch.save(content, source)
    multiple = detector.core.size_divisibility
    metadata = describe(content, source, size_divisibility=multiple, precision="fp32")
    write_onnx(detector.core, folder / "a.onnx", metadata)
    write_openvino(read_openvino(folder / "a.onnx"), folder / "a.xml", metadata)
    return [folder / "a.onnx", folder / "a.xml"]


@pytest.fixture(scope="session")
def export() -> Callable[[TorchDetector, dict[str, Any], Path], list[Path]]:
    """Exports a detector to ONNX and OpenVINO, or skips where they are not installed."""
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name, reason="make setup EXTRAS=export")
    return write_both
