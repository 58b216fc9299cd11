"""Draws the pictures of karyograms that the documentation shows, of synthetic cells.

    .venv/bin/python docs/pictures.py            # into docs/images
    .venv/bin/python docs/pictures.py --out DIR

A case with trisomy 21, named by its true classes; its masks are the included detector's. Two marks
are set for show.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.data.synthetic.render import case_genome
from deepacc_d2.detection.detector import Detections, Detector, load_detector
from deepacc_d2.images.view import make_view
from deepacc_d2.karyogram import build_karyogram, draw_overlay, save_case_report
from deepacc_d2.karyotype.case import summarize_case

CELLS = 6
CONFIG = SyntheticConfig(
    seed=4, abnormality_rate=1.0, loss_rate=0.0, overlap_rate=0.2, box_margin=3
)
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def named(index: int) -> np.ndarray:
    """Returns probabilities that leave little doubt of a class."""
    probabilities = np.full(NUM_CLASSES + 1, 0.02 / NUM_CLASSES)
    probabilities[index] = 0.98
    return probabilities


def draw_cell(case: int, number: int, detector: Detector) -> tuple[np.ndarray, Cell]:
    """Returns a drawn image and its cell, of true boxes and classes."""
    gray, record = render_metaphase(CONFIG, case, number)
    annotations: list[dict[str, Any]] = record["annotations"]
    corners = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in annotations)]
    boxes = np.array(corners, np.float64)
    found = Detections(
        boxes, np.zeros((len(boxes), 25)), np.arange(len(boxes)), make_view(gray, detector.view)
    )
    chromosomes = []
    for box, annotation, mask in zip(
        corners, annotations, detector.masks(gray, found), strict=True
    ):
        index = annotation["category_id"] - 1
        own = Chromosome(box, named(index), index, index, 0.98, ())
        chromosomes.append(replace(own, mask=mask))
    chromosomes[0].flags, chromosomes[4].flags = ("low_confidence",), ("touching",)
    height, width = gray.shape
    karyotype = str(record["karyotype"])
    name = f"synthetic cell {number + 1}"
    return gray, Cell(name, "", width, height, chromosomes, karyotype, karyotype, 0.9)


def main() -> None:
    """Writes karyogram.png, overlay.png and case_report.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--out", type=Path, default=IMAGES)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    detector = load_detector(None, device="cpu")
    case = next(n for n in range(500) if case_genome(CONFIG, n)[0].iscn == "47,XY,+21")
    drawn = [draw_cell(case, number, detector) for number in range(CELLS)]
    cells = [cell for _, cell in drawn]
    karyogram = build_karyogram(*drawn[0])
    karyogram.save(out / "karyogram.png")
    cv2.imwrite(str(out / "overlay.png"), draw_overlay(*drawn[0])[..., ::-1])
    result = summarize_case(cells, case_id="synthetic case")
    save_case_report(
        out / "case_report.png", result, cells, [karyogram], about="DeepACC-D2, true classes"
    )
    print(f"karyogram.png, overlay.png and case_report.png are in {out}")


if __name__ == "__main__":
    main()
