"""A detector with cell context, exported, against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepacc_d2.checkpoint import build_from_checkpoint
from deepacc_d2.detection.export.parity import compare
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.detection.runners import load_runner
from deepacc_d2.detection.select import SelectionSettings

EVERYTHING = SelectionSettings(min_foreground=0.0)
Export = Callable[[TorchDetector, dict[str, Any], Path], list[Path]]
MakeImage = Callable[[int, int], np.ndarray[Any, Any]]
SIZES = ((96, 128), (131, 77), (200, 190))
CONTEXT = (
    "+context_node={_target_:deepacc_d2.modeling.CellContext,in_features:16,num_classes:24,"
    "width:16,layers:2,heads:2,iou:0.3,crossing_iou:0.6,crossing_score:0.1}",
    "model.roi_heads.box_predictor.context=${context_node}",
)


@pytest.fixture(scope="module")
def content(make_content: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    made = make_content("delta=0.1", "s=32", *CONTEXT, preset="deepacc")
    head = "roi_heads.box_predictor.context.head.weight"
    # As it is built it corrects nothing.
    made["model"][head] = torch.randn(made["model"][head].shape) * 2
    made["deepacc_config"]["model"]["statistics_share"] = 0.5
    return made


def test_onnx_and_openvino_give_what_pytorch_gives(
    content: dict[str, Any], export: Export, make_image: MakeImage, tmp_path: Path
) -> None:
    detector = TorchDetector(build_from_checkpoint(content, "tiny.ckpt"))
    predictor: Any = detector.core.model.roi_heads.box_predictor
    expected = [detector(make_image(*size)) for size in SIZES]
    context, predictor.context = predictor.context, None
    without = [detector(make_image(*size)) for size in SIZES]
    predictor.context = context
    for (_, a), (_, b) in zip(expected, without, strict=True):
        assert 1 < (a[:, -1] < 0.999).sum() < len(a), "the context keeps all boxes, or none"
        assert np.abs(a - b).max() > 0.1
    for path in export(detector, content, tmp_path):
        runner = load_runner(path, threads=1)
        for size, found in zip(SIZES, expected, strict=True):
            parity = compare(found, runner(make_image(*size)), EVERYTHING)
            assert parity.chromosomes
            assert parity.same, parity


def test_an_image_of_which_no_box_is_kept(
    content: dict[str, Any], export: Export, make_image: MakeImage, tmp_path: Path
) -> None:
    detector = TorchDetector(build_from_checkpoint(content, "tiny.ckpt"))
    predictor: Any = detector.core.model.roi_heads.box_predictor
    predictor.context.min_foreground = 1.0  # no box is that surely a chromosome
    _, expected = detector(make_image(96, 128))
    assert len(expected)
    assert (expected.argmax(axis=1) == 24).all()
    for path in export(detector, content, tmp_path):
        _, found = load_runner(path, threads=1)(make_image(96, 128))
        assert np.allclose(found, expected, atol=1e-4)
