"""Exported detectors, run with the face of :class:`~deepacc_d2.detection.network.TorchDetector`.

Shapes: H x W pixels, P proposals. Neither runner needs PyTorch's model code or a checkpoint.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deepacc_d2.detection.metadata import KEY, ExportMetadata, parse
from deepacc_d2.detection.network import Raw, clip, pad
from deepacc_d2.detection.telemetry import stay_silent
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.spread import Gray

OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""OpenVINO's names of what is computed in; what int8 leaves out stays in float32."""

OUTPUTS = ("boxes", "probabilities")


@functools.cache
def _core() -> Any:
    """Returns the process's one OpenVINO core, which lives as long as the process does.

    With the last core its plugins would be unloaded, but what they have registered for a fork would
    stay: the next one, such as a data loader's, would jump into freed code.
    """
    import openvino

    return openvino.Core()


class Runner(Protocol):
    """A detector read from a file."""

    metadata: ExportMetadata

    def __call__(self, image: Gray) -> Raw:
        """Detects; see :meth:`~deepacc_d2.detection.network.TorchDetector.__call__`."""


def require(*modules: str) -> None:
    """Checks that optional packages are installed, and keeps them from reporting their use.

    Raises:
        ConfigError: names the first that is missing, and how to get it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"exported models need {module}, which is not installed: make setup EXTRAS=export"
            )
    stay_silent()


def load_runner(path: str | Path, *, threads: int | None = None) -> OnnxDetector | OpenVinoDetector:
    """Reads an exported detector; its suffix says which runtime it is for.

    Args:
        path: a ``.onnx`` file, or a ``.xml`` file with its ``.bin`` next to it.
        threads: of the CPU; None leaves it to the runtime.

    Raises:
        ConfigError: the runtime is not installed.
        DataError: the file is missing, damaged or not of ``make export``.
    """
    if Path(path).suffix == ".onnx":
        return OnnxDetector(path, threads=threads)
    if Path(path).suffix == ".xml":
        return OpenVinoDetector(path, threads=threads)
    raise DataError(f"model {path} is neither .onnx nor .xml, which `make export` writes")


def is_exported(path: str | Path) -> bool:
    """Whether a file name is that of an exported model rather than a checkpoint.

    >>> is_exported("runs/sep/model.onnx"), is_exported("runs/sep/best.ckpt")
    (True, False)
    """
    return Path(path).suffix in (".onnx", ".xml")


class _Exported:
    """What both runners do around their runtime."""

    metadata: ExportMetadata

    def __call__(self, image: Gray) -> Raw:
        """Detects in a gray image uint8 (H, W) of any size.

        Returns:
            Boxes (P, 4), XYXY in its pixels, clipped to it, and probabilities (P, 25).
        """
        padded = pad(image, self.metadata["size_divisibility"])
        boxes, probabilities = self._infer(padded[None, None].astype(np.float32))
        return clip(boxes, image.shape), probabilities

    def _infer(self, pixels: Any) -> Raw:
        raise NotImplementedError


class OnnxDetector(_Exported):
    """A detector run by ONNX Runtime on the CPU."""

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """Reads a file.

        Raises:
            ConfigError: ONNX Runtime is not installed.
            DataError: the file is missing, damaged or not of ``make export``.
        """
        _check_file(path)
        require("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise _damaged(path, error) from error
        _check_names(
            path,
            [node.name for node in self._session.get_inputs()],
            [node.name for node in self._session.get_outputs()],
        )
        properties = self._session.get_modelmeta().custom_metadata_map
        self.metadata = parse(properties.get(KEY), path)

    def _infer(self, pixels: Any) -> Raw:
        boxes, probabilities = self._session.run(OUTPUTS, {"image": np.ascontiguousarray(pixels)})
        return boxes, probabilities


class OpenVinoDetector(_Exported):
    """A detector run by OpenVINO."""

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "CPU",
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Reads a file.

        Args:
            path: the ``.xml`` file; its ``.bin`` is next to it.
            device: OpenVINO's name of one.
            precision: ``fp32`` or ``bf16``, to compute in another than the file was exported for.
            threads: of the CPU; None leaves it to OpenVINO.

        Raises:
            ConfigError: OpenVINO is not installed, or knows no such device or precision.
            DataError: the file is missing, damaged or not of ``make export``.
        """
        _check_file(path)
        _check_file(Path(path).with_suffix(".bin"))
        require("openvino")
        with Path(path).open("rb") as file:
            if b"<net" not in file.read(4096):
                # OpenVINO would try the readers of all other formats, some of which print.
                raise _damaged(path, ValueError("no <net> at its beginning"))
        core = _core()
        if device not in core.available_devices:
            found = ", ".join(core.available_devices)
            raise ConfigError(f"OpenVINO has no device {device!r} here: there is {found}")
        try:
            model = core.read_model(str(path))
        except RuntimeError as error:
            raise _damaged(path, error) from error
        _check_names(
            path,
            [name for node in model.inputs for name in node.names],
            [name for node in model.outputs for name in node.names],
        )
        text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
        self.metadata = parse(text, path)
        chosen = precision or self.metadata["precision"]
        if chosen not in OPENVINO_PRECISIONS:
            raise ConfigError(f"precision {chosen!r} is unknown: choose fp32 or bf16")
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        options["INFERENCE_PRECISION_HINT"] = OPENVINO_PRECISIONS[chosen]
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._request = core.compile_model(model, device, options).create_infer_request()
        except RuntimeError as error:
            raise _damaged(path, error) from error

    def _infer(self, pixels: Any) -> Raw:
        result = self._request.infer({"image": np.ascontiguousarray(pixels)})
        # The request's own memory is written to again by the next image.
        return np.array(result["boxes"]), np.array(result["probabilities"])


def _check_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise DataError(f"model {path} does not exist: make it by `make export CKPT=... OUT=...`")


def _check_names(path: str | Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Checks that a model takes and gives what `make export` writes.

    Raises:
        DataError: it does not.
    """
    if "image" not in inputs or not set(OUTPUTS) <= set(outputs):
        raise DataError(
            f"model {path} takes {', '.join(inputs) or 'nothing'} and gives "
            f"{', '.join(outputs) or 'nothing'}, not {' and '.join(OUTPUTS)} of an image: make it "
            "by `make export`"
        )


def _damaged(path: str | Path, error: Exception) -> DataError:
    text = " ".join(str(error).split())
    return DataError(f"model {path} is damaged or no model ({text[:160]}): export it again")
