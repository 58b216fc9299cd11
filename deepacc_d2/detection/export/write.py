"""Exported files are written here: traced to ONNX, and from ONNX to OpenVINO."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from deepacc_d2.detection.export.graph import DetectorGraph
from deepacc_d2.detection.metadata import KEY, ExportMetadata, dump
from deepacc_d2.detection.network import DetectorCore
from deepacc_d2.detection.runners import require

OPSET = 17
"""RoIAlign with half a pixel's shift came with 16; 17 is the newest that both runtimes know."""
EXAMPLE_CELLS = (12, 16)
"""Rows and columns of the image that is traced, in units of the size divisibility."""
DYNAMIC_AXES = {
    "image": {2: "height", 3: "width"},
    "boxes": {0: "proposals"},
    "probabilities": {0: "proposals"},
}


def write_onnx(core: DetectorCore, path: str | Path, metadata: ExportMetadata) -> None:
    """Writes a detector as ONNX: ``image`` (1, 1, H, W) to ``boxes`` and ``probabilities``.

    Args:
        core: a float32 detector on the CPU.
        path: of the ``.onnx`` file.
        metadata: stored in it.

    Raises:
        ConfigError: ``onnx`` is not installed.
        DataError: the detector has a part that cannot be exported.
    """
    require("onnx")
    import onnx

    graph = DetectorGraph(core).eval()
    rows, columns = (n * core.size_divisibility for n in EXAMPLE_CELLS)
    # An image of noise has proposals on every level, so that all of the graph is traced.
    example = torch.rand(1, 1, rows, columns, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter by tracing is said to be old, and Detectron2's asserts to be constants.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["boxes", "probabilities"],
            dynamic_axes=DYNAMIC_AXES,
        )
    model = onnx.load(str(path))
    model.doc_string = "Chromosome detector; research software, not a medical device."
    onnx.helper.set_model_props(model, {KEY: dump(metadata)})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def read_openvino(path: str | Path) -> Any:
    """Converts a file of :func:`write_onnx` to an OpenVINO model.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    require("openvino")
    import openvino

    return openvino.convert_model(str(path))


def write_openvino(model: Any, path: str | Path, metadata: ExportMetadata) -> None:
    """Writes an OpenVINO model as ``.xml``, with its weights as ``.bin`` next to it.

    Args:
        model: of :func:`read_openvino`, quantized or not.
        path: of the ``.xml`` file.
        metadata: stored in it.
    """
    import openvino

    model.set_rt_info(dump(metadata), KEY)
    # Weights in half precision would change scores by more than the runtimes differ.
    openvino.save_model(model, str(path), compress_to_fp16=False)
