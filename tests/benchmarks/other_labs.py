"""What a detector does on metaphases of other laboratories whose chromosomes are known.

    python tests/benchmarks/other_labs.py FOLDER [--ckpt best.ckpt] [--like DATA] [--draw OUT]

FOLDER holds images, and next to each with a known truth a JSON of the same stem: ``chromosomes``, a
list of ``cls`` (1 to 22, X, Y) and ``box`` (XYXY in pixels). Images without one are only drawn.

The size in the view is that of the known boxes. Where these are drawn tighter than the boxes that
the detector was trained on, it looks too small: with ``--like``, a data set of the training's
annotators, the last column has the size that boxes as loose as theirs would have.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from box_margin import box_margins, margin_of_set
from tabulate import tabulate

from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES
from deepacc_d2.images.read import read_image
from deepacc_d2.karyogram.overlay import draw_overlay
from deepacc_d2.karyotype.fitness import median_size
from deepacc_d2.karyotype.known import box_labels
from deepacc_d2.prediction.predictor import Predictor, load_predictor

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


def read_truth(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (G, 4) and classes (G,) of a truth file."""
    found = json.loads(path.read_text())["chromosomes"]
    boxes = np.array([each["box"] for each in found], dtype=np.float64).reshape(-1, 4)
    return boxes, np.array([CLASSES.index(str(each["cls"])) for each in found])


def row(predictor: Predictor, path: Path, out: Path | None, usual: float | None) -> list[object]:
    """Returns the row of one image; draws it where a folder is given.

    Args:
        predictor: what is measured.
        path: of the image.
        out: a folder for its picture, or None.
        usual: how loose boxes were in training (:func:`box_margins`), or None.
    """
    gray = read_image(path).gray
    cell = predictor.cell(gray, name=path.stem)
    if out is not None:
        overlay = np.ascontiguousarray(draw_overlay(gray, cell)[..., ::-1])
        cv2.imwrite(str(out / f"{path.stem}.png"), overlay)
    row: list[object] = [path.stem, len(cell.chromosomes), cell.status, f"{cell.confidence:.4f}"]
    truth = path.with_suffix(".json")
    if not truth.is_file():
        return row
    boxes, classes = read_truth(truth)
    placed = np.array([c.box for c in cell.chromosomes]).reshape(-1, 4)
    p = np.array([c.probabilities for c in cell.chromosomes]).reshape(-1, NUM_CLASSES + 1)
    labels = box_labels(placed, p, boxes, classes)
    own = [int(c.probabilities[:NUM_CLASSES].argmax()) for c in cell.chromosomes]
    assigned = [c.assigned for c in cell.chromosomes]
    ratio = median_size(boxes) * cell.view["zoom"] / predictor.detector.view.chromosome_size
    right = [int((np.array(answer) == labels).sum()) for answer in (own, assigned)]
    alike = ""
    if usual is not None:
        alike = f"{ratio * usual / np.median(box_margins(gray, boxes)):.2f}"
    return [*row, len(classes), int((labels < NUM_CLASSES).sum()), *right, f"{ratio:.2f}", alike]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ckpt", type=Path, help="instead of the shipped DeepACC")
    parser.add_argument("--tta", type=int, help="looks at an image; the checkpoint's if left out")
    parser.add_argument("--like", type=Path, help="a data set with boxes as in training")
    parser.add_argument("--draw", type=Path, help="a folder for overlays")
    options = parser.parse_args()
    predictor = load_predictor(options.ckpt, tta=options.tta)
    if options.draw is not None:
        options.draw.mkdir(parents=True, exist_ok=True)
    paths = sorted(p for p in options.folder.iterdir() if p.suffix.lower() in IMAGES)
    usual = None if options.like is None else margin_of_set(options.like)[0]
    rows = [row(predictor, path, options.draw, usual) for path in paths]
    known = [r for r in rows if len(r) > 4]
    sums = [sum(int(str(r[n])) for r in known) for n in range(4, 8)]
    rows.append(["all known", "", "", "", *sums])
    heads = ["image", "boxes", "status", "confidence", "chromosomes", "found"]
    heads += ["right by box", "right assigned", "size in the view over the target"]
    heads += ["with boxes as loose as training's"]
    print(tabulate(rows, headers=heads, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
