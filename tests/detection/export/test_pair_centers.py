"""A detector with pair centers and shrinkage, exported, against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepacc_d2.checkpoint import build_from_checkpoint
from deepacc_d2.detection.export.parity import compare
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.detection.runners import load_runner
from deepacc_d2.detection.select import SelectionSettings

EVERYTHING = SelectionSettings(min_foreground=0.0)
Export = Callable[[TorchDetector, dict[str, Any], Path], list[Path]]
MakeImage = Callable[[int, int], np.ndarray[Any, Any]]
SIZES = ((96, 128), (131, 77), (200, 190))


@pytest.fixture(scope="module")
def content(make_content: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    # An untrained detector is sure of little: this low, most classes have a center.
    return make_content("delta=0.1", "s=32", preset="deepacc")


def test_onnx_and_openvino_give_what_pytorch_gives(
    content: dict[str, Any], export: Export, make_image: MakeImage, tmp_path: Path
) -> None:
    detector = TorchDetector(build_from_checkpoint(content, "tiny.ckpt"))
    branch: Any = detector.core.model.roi_heads.box_predictor.inference_branch
    assert (branch.center, branch.center_share) == ("pair", 0.5)
    pairs: list[int] = []
    hook = branch.register_forward_hook(
        lambda _module, _inputs, output: pairs.append(int((output[1].partner >= 0).sum()))
    )
    expected = [detector(make_image(*size)) for size in SIZES]
    hook.remove()
    assert all(pairs), "no image has a pair"
    for path in export(detector, content, tmp_path):
        runner = load_runner(path, threads=1)
        for size, found in zip(SIZES, expected, strict=True):
            parity = compare(found, runner(make_image(*size)), EVERYTHING)
            assert parity.chromosomes
            assert parity.same, parity


def test_an_image_without_proposals(
    content: dict[str, Any], export: Export, make_image: MakeImage, tmp_path: Path
) -> None:
    detector = TorchDetector(build_from_checkpoint(content, "tiny.ckpt"))
    generator: Any = detector.core.model.proposal_generator
    generator.min_box_size = 1e6  # no box is that large
    assert len(detector(make_image(64, 64))[0]) == 0
    for path in export(detector, content, tmp_path):
        boxes, probabilities = load_runner(path, threads=1)(make_image(64, 64))
        assert boxes.shape == (0, 4)
        assert probabilities.shape == (0, 25)
