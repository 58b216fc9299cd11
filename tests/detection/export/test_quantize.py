"""Quantized convolutions: the same pictures, in integers, against the network in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepacc_d2.detection.export.quantize import quantize
from deepacc_d2.detection.export.write import read_openvino
from deepacc_d2.modeling.image_statistics import use_image_statistics

MULTIPLE = 8


@pytest.fixture(autouse=True)
def installed() -> None:
    for name in ("onnx", "openvino", "nncf"):
        pytest.importorskip(name, reason="make setup EXTRAS=export")


def network(share: float) -> nn.Module:
    """Two convolutions with norms, in a backbone, which is what is quantized."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
    )
    with torch.no_grad():
        for norm in (backbone[1], backbone[4]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    if share:
        use_image_statistics(backbone, share)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, image: Tensor) -> Tensor:
            found: Tensor = self.backbone((image - 128) / 60)
            return found

    return Network().eval().requires_grad_(False)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 4, 5))
    return [np.kron(c, np.ones((8, 8))).astype(np.uint8) for c in coarse]


def quantized(model: nn.Module, path: Path) -> Any:
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 32, 40),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["image"],
        dynamic_axes={"image": {2: "h", 3: "w"}},
    )
    import openvino

    made = quantize(read_openvino(path), pictures(12), MULTIPLE)
    assert any(node.get_type_name() == "FakeQuantize" for node in made.get_ops())
    return openvino.Core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_integers_differ_little_even_where_norms_follow_the_image(
    share: float, tmp_path: Path
) -> None:
    model = network(share)
    run = quantized(model, tmp_path / "net.onnx")
    for picture in pictures(4):
        image = picture[None, None].astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(image)).numpy()
        found = run(image)[0]
        assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()
