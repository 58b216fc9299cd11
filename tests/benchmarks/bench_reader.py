"""The one reader of images against OpenCV alone, gray levels of a file a second.

Common 8-bit files, as OpenCV decodes them to gray with no question asked: that is what training
did before it shared the reader of prediction. Either reads in turns, on one thread whose own time
counts; the middle of the ratios of neighboring turns is told, which a load that comes and goes does
not shift.

Run as a script: ``python tests/benchmarks/bench_reader.py``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measurement import Measurement
from PIL import Image

from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.images.read import read_gray

GOAL = ">= 0.95"
TURNS = 41
READS = 8
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "JPEG, RGB": ("RGB", ".jpg", {"quality": 90}),
    "JPEG, gray": ("L", ".jpg", {"quality": 90}),
    "PNG, gray": ("L", ".png", {}),
    "PNG, RGB": ("RGB", ".png", {}),
    "WebP": ("L", ".webp", {"quality": 80}),
}


def opencv(path: Path) -> np.ndarray:
    """Reads as training did."""
    return np.asarray(cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE))


def _seconds(read: Callable[[Path], np.ndarray], path: Path) -> float:
    began = time.thread_time()
    for _ in range(READS):
        read(path)
    return time.thread_time() - began


def ratio(path: Path) -> float:
    """Returns how many times as fast the reader is."""
    read_gray(path), opencv(path)
    ratios = []
    for turn in range(TURNS):
        order = (opencv, read_gray) if turn % 2 else (read_gray, opencv)
        took = {read: _seconds(read, path) for read in order}
        ratios.append(took[opencv] / took[read_gray])
    return statistics.median(ratios)


def run() -> list[Measurement]:
    """Measures every kind of file."""
    gray = render_metaphase(SyntheticConfig(cells_per_case=1), 0, 0)[0]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (mode, suffix, options) in KINDS.items():
            path = Path(folder) / f"cell{suffix}"
            Image.fromarray(gray).convert(mode).save(path, **options)
            np.testing.assert_array_equal(read_gray(path), opencv(path))
            results.append(
                Measurement(
                    f"reader over OpenCV alone, {name}",
                    ratio(path),
                    GOAL,
                    "x",
                    f"{gray.shape[1]}x{gray.shape[0]} pixels; {TURNS} turns of {READS} reads",
                )
            )
    return results


if __name__ == "__main__":
    for result in run():
        print(f"{result.name:40} {result.value:.2f} {result.unit}  {result.how}")
