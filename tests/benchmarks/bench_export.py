"""Exported detectors against eager PyTorch on a CPU: seconds for one image, in turns.

Each runner does the whole of what prediction asks of it: a gray image in, boxes and probabilities
of its proposals out. All have the same threads and see the same image one after the other, each
turn beginning with another one; a ratio is taken within a turn, so that a load that comes and goes
meets all alike. The detector is that of the checkpoint in DEEPACC_CKPT, else the shipped one, else
a DeepACC at quick scale with random weights, which takes as long.

Run as a script: ``python tests/benchmarks/bench_export.py``.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurement import Measurement
from omegaconf import DictConfig

from deepacc_d2.checkpoint import build, build_from_checkpoint, read_checkpoint
from deepacc_d2.detection.detector import Network
from deepacc_d2.detection.export.calibration_images import drawn
from deepacc_d2.detection.export.quantize import quantize
from deepacc_d2.detection.export.write import read_openvino, write_onnx, write_openvino
from deepacc_d2.detection.metadata import describe
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.detection.runners import OnnxDetector, OpenVinoDetector
from deepacc_d2.images.view import ViewSettings, make_view
from deepacc_lightning.core.config import compose_config, to_plain

SHIPPED = Path(__file__).resolve().parents[2] / "deepacc_d2" / "weights" / "deepacc.ckpt"
EAGER = "eager fp32"
GOALS = {"OpenVINO bf16": ">= 2", "OpenVINO int8": ">= 3"}
CALIBRATION = 16


def checkpoint(folder: Path) -> Path:
    """Returns the checkpoint to export; makes one with random weights where there is none."""
    named = os.environ.get("DEEPACC_CKPT")
    if named or SHIPPED.is_file():
        return Path(named or SHIPPED)
    options = ["experiment=siamese_gia", "pixel_mean=228", "pixel_std=44", "data.root=unused"]
    cfg: DictConfig = compose_config("train", [*options, "out=unused"])
    plain = to_plain(cfg)
    torch.manual_seed(0)
    path = folder / "random.ckpt"
    torch.save({"model": build(plain["model"]).state_dict(), "deepacc_config": plain}, path)
    return path


def runners(path: Path, folder: Path, threads: int) -> dict[str, Network]:
    """Exports a checkpoint in all ways and returns what runs it."""
    content = read_checkpoint(path)
    eager = TorchDetector(build_from_checkpoint(content, path))
    multiple = eager.core.size_divisibility

    def metadata(precision: str) -> Any:
        return describe(content, path, size_divisibility=multiple, precision=precision)

    onnx, full, eight = (folder / name for name in ("a.onnx", "a.xml", "int8.xml"))
    write_onnx(eager.core, onnx, metadata("fp32"))
    write_openvino(read_openvino(onnx), full, metadata("fp32"))
    view = ViewSettings.from_augmentations(metadata("int8")["test_augmentations"])
    images = [make_view(gray, view).image for gray in drawn(CALIBRATION)]
    write_openvino(quantize(read_openvino(onnx), images, multiple), eight, metadata("int8"))
    return {
        EAGER: eager,
        "eager bf16 autocast": TorchDetector(eager.core.model, dtype=torch.bfloat16),
        "ONNX Runtime fp32": OnnxDetector(onnx, threads=threads),
        "OpenVINO fp32": OpenVinoDetector(full, threads=threads),
        "OpenVINO bf16": OpenVinoDetector(full, precision="bf16", threads=threads),
        "OpenVINO int8": OpenVinoDetector(eight, threads=threads),
    }


def run(turns: int = 20) -> list[Measurement]:
    """Measures; nothing where the extra is not installed."""
    missing = [n for n in ("onnx", "onnxruntime", "openvino", "nncf") if not _has(n)]
    if missing:
        print(f"no {missing[0]} here (make setup EXTRAS=export): skipped", end=" ", flush=True)
        return []
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = checkpoint(folder)
        made = runners(path, folder, threads)
        config = read_checkpoint(path)["deepacc_config"]
        view = ViewSettings.from_augmentations(config["scale"]["test_augmentations"])
        images = [make_view(gray, view).image for gray in drawn(4)]
        wall: dict[str, list[float]] = {key: [] for key in made}
        used: dict[str, list[float]] = {key: [] for key in made}
        for detector in made.values():
            for image in images:  # each size is prepared for once
                detector(image)
        order = list(made)
        for turn in range(turns):
            order = [*order[1:], order[0]]
            for key in order:
                began = time.perf_counter(), time.process_time()
                made[key](images[turn % len(images)])
                wall[key].append(time.perf_counter() - began[0])
                used[key].append(time.process_time() - began[1])
        del made
    shape = "x".join(map(str, images[0].shape[::-1]))
    results = []
    for key, seconds in wall.items():
        if key == EAGER:
            continue
        ratios = np.array(wall[EAGER]) / seconds
        by_cpu = float(np.median(np.array(used[EAGER]) / used[key]))
        results.append(
            Measurement(
                name=f"image/s, {key} / {EAGER}",
                value=float(np.median(ratios)),
                goal=GOALS.get(key, "-"),
                unit="x",
                how=f"one image of {shape} or so, {threads} threads, median of {turns} turns; by "
                f"CPU time {by_cpu:.2f}",
                details={
                    "seconds": float(np.median(seconds)),
                    "eager_seconds": float(np.median(wall[EAGER])),
                    "by_cpu_time": by_cpu,
                    "checkpoint": path.name,
                },
            )
        )
    return results


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    for result in run():
        print(f"{result.name}: {result.value:.3g} ({result.how})")
