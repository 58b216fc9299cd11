from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from torch import nn

from deepacc_d2.checkpoint import build_from_checkpoint
from deepacc_d2.detection.network import DetectorCore, TorchDetector, clip, pad
from deepacc_d2.errors import DataError
from deepacc_d2.images.spread import Gray

MakeContent = Callable[..., dict[str, Any]]


def drawing(height: int, width: int) -> Gray:
    rng = np.random.default_rng(height)
    image = np.full((height, width), 235, dtype=np.uint8)
    for _ in range(6):
        y, x = rng.integers(0, height - 12), rng.integers(0, width - 30)
        image[y : y + 10, x : x + 28] = rng.integers(60, 160)
    return image


@pytest.mark.parametrize("preset", ["baseline", "sep", "siamese", "siamese_gia", "retinanet"])
def test_every_row_is_what_the_model_gives_in_tests(preset: str, make_content: MakeContent) -> None:
    model = build_from_checkpoint(make_content(preset=preset), "a").eval()
    image = drawing(128, 160)
    boxes, probabilities = TorchDetector(model)(image)
    assert boxes.shape == (len(probabilities), 4)
    if preset != "retinanet":
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    # Detectron2's own path, in the order of the proposals; empty boxes are left out there.
    with torch.no_grad():
        (output,) = model([{"image": torch.from_numpy(image)[None]}])
    found: Instances = output["proposals"]
    usable = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    assert len(found) == usable.sum() > 0
    np.testing.assert_allclose(boxes[usable], found.pred_boxes.tensor.numpy(), atol=1e-3)
    np.testing.assert_allclose(probabilities[usable], found.probabilities.numpy(), atol=1e-6)


def test_any_size(tiny_detector: TorchDetector) -> None:
    for height, width in ((1, 1), (17, 300), (97, 33)):
        boxes, probabilities = tiny_detector(drawing(max(13, height), max(31, width)))
        assert len(boxes) == len(probabilities)
        boxes, _ = tiny_detector(np.full((height, width), 230, dtype=np.uint8))
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()


def test_bf16_is_near(tiny_detector: TorchDetector) -> None:
    image = drawing(128, 128)
    half = TorchDetector(tiny_detector.core.model, dtype=torch.bfloat16)
    _, probabilities = half(image)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-3)


def test_other_models_are_refused() -> None:
    with pytest.raises(DataError, match=r"a Linear is no detector of this project"):
        DetectorCore(nn.Linear(2, 2))


def test_pad_repeats_the_border() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]
    assert pad(image, 4).tolist() == expected
    assert (pad(pad(image, 4), 4) == pad(image, 4)).all()
    assert pad(np.zeros((8, 4), dtype=np.uint8), 4).shape == (8, 4)


def test_clip() -> None:
    boxes = np.array([[-3.0, 2, 50, 9], [1, -1, 4, 30]], dtype=np.float32)
    assert clip(boxes, (10, 20)).tolist() == [[0, 2, 20, 9], [1, 0, 4, 10]]
