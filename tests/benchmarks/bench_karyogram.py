"""A cell's karyogram: CPU seconds of all its parts on one thread, from boxes to the PNG.

Synthetic spreads serve. Finding and naming chromosomes is not among the parts, see
``bench_predict.py``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measurement import Measurement

from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.detection.detector import Detections
from deepacc_d2.images.view import make_view
from deepacc_d2.karyogram import build_karyogram
from deepacc_d2.karyogram.cut import cut_cell
from deepacc_d2.karyogram.karyogram import outlines_of, strip_zoom
from deepacc_d2.karyogram.orientation.find import turn
from deepacc_d2.karyogram.straighten import straighten
from deepacc_d2.prediction.predictor import load_predictor

CELLS = 7


def parts_of_cells(cells: int = CELLS) -> dict[str, list[float]]:
    """Returns CPU seconds of each part for each cell, those of a first one left out."""
    predictor = load_predictor(device="cpu")
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seconds: dict[str, list[float]] = {}

    def told(part: str, work: Callable[..., Any], *args: Any) -> Any:
        began = time.process_time()
        result = work(*args)
        seconds.setdefault(part, []).append(time.process_time() - began)
        return result

    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(cells + 1):
                if number == 1:
                    seconds.clear()
                gray, _ = render_metaphase(SyntheticConfig(cells_per_case=1), number, 0)
                view = make_view(gray, predictor.detector.view)
                cell = predictor.cell(gray, name="cell", view=view)
                boxes = np.array([c.box for c in cell.chromosomes], np.float64)
                found = Detections(boxes, np.zeros((len(boxes), 25)), np.arange(len(boxes)), view)
                told("masks", predictor.detector.masks, gray, found)
                built = told("build", build_karyogram, gray, cell)
                told("draw", built.save, Path(folder) / "k.png")
                # The parts of build once more, to tell where its time goes.
                plain = [c.box for c in cell.chromosomes]
                cuts = told("of build: cut", cut_cell, gray, plain, outlines_of(cell))
                zoom = strip_zoom(plain)
                straights = told(
                    "of build: straighten",
                    lambda c, z: [straighten(one, z) for one in c],
                    cuts,
                    zoom,
                )
                told("of build: turn", turn, straights, [c.name for c in cell.chromosomes])
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    return seconds


def run() -> list[Measurement]:
    """Measures."""
    seconds = parts_of_cells()
    whole = np.sum([seconds[part] for part in ("masks", "build", "draw")], axis=0)
    parts = {part: round(float(np.median(took)), 3) for part, took in seconds.items()}
    return [
        Measurement(
            name="a karyogram, all parts",
            value=float(np.median(whole)),
            goal="<= 1.0",
            unit="s",
            how=f"CPU of one thread, median of {CELLS} synthetic cells: "
            + ", ".join(f"{part} {took:.2f}" for part, took in parts.items() if ":" not in part),
            details={"parts": parts, "worst": float(np.max(whole))},
        )
    ]


if __name__ == "__main__":
    for measurement in run():
        print(f"{measurement.name}: {measurement.value:.2f} s ({measurement.how})")
        print(measurement.details)
