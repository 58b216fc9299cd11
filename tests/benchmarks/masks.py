"""Measures masks against outlines: ``python tests/benchmarks/masks.py --help``.

Masks are asked for in the true boxes, so that finding chromosomes plays no part. ``--outlines`` is
a folder of LabelMe files, with the image inside or next to them, whose classes do not matter;
``--data`` is a data set whose images are composed anew, with isolated chromosomes put across each
other. Both report what the masks of a checkpoint and what cutting by thresholds have in common
with the truth: the median and mean IoU of all, and of those that cross others.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.data.masks.compose import Crowding, compose
from deepacc_d2.data.masks.spreads import outlined, read_spread
from deepacc_d2.detection.detector import Detections, Detector, load_detector
from deepacc_d2.errors import DataError, run_cli
from deepacc_d2.images.read import read_gray
from deepacc_d2.images.rings import fill
from deepacc_d2.images.view import View, make_view
from deepacc_d2.karyogram.cut import cut_cell

# Share of a mask that others have as well from which on it crosses.
CROSSING = 0.03


@dataclass
class Measured:
    """IoU of each chromosome by each way of cutting, and the share of it that others have."""

    masks: list[float] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    shared: list[float] = field(default_factory=list)
    area: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0

    def report(self) -> str:
        """Returns the figures as text."""
        crossing = np.array(self.shared) > CROSSING
        lines = [f"{self.images} images, {len(crossing)} chromosomes, {crossing.sum()} crossing"]
        for name, values in (("thresholds", self.thresholds), ("masks", self.masks)):
            if not values:
                continue
            iou = np.array(values)
            parts = [("all", iou), ("crossing", iou[crossing]), ("others", iou[~crossing])]
            figures = ", ".join(
                f"{what} {np.median(v):.3f} (mean {v.mean():.3f})" for what, v in parts if len(v)
            )
            lines.append(f"{name}: median IoU {figures}")
        if self.masks:
            lines.append(
                f"area of the masks over the true one: median {np.median(self.area):.3f}; "
                f"{self.seconds / max(self.images, 1):.2f} s CPU an image"
            )
        return "\n".join(lines)


def labelme(folder: Path, every: int) -> Iterator[tuple[NDArray[np.uint8], list[list[float]]]]:
    """Yields images and their polygons, each a flat list."""
    paths = sorted(folder.rglob("*.json"))[::every]
    if not paths:
        raise DataError(f"{folder} holds no LabelMe file (*.json)")
    for path in paths:
        labels = json.loads(path.read_text(encoding="utf-8"))
        if labels.get("imageData"):
            raw = np.frombuffer(base64.b64decode(labels["imageData"]), np.uint8)
            gray = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE)
        else:
            gray = read_gray(path.parent / labels["imagePath"])
        shapes = [s["points"] for s in labels["shapes"] if len(s["points"]) > 2]
        yield np.asarray(gray, np.uint8), [np.ravel(points).tolist() for points in shapes]


def measure(
    detector: Detector,
    gray: NDArray[np.uint8],
    true: list[NDArray[np.bool_]],
    boxes: NDArray[np.float64],
    *,
    view: View,
    into: Measured,
    thresholds: bool,
) -> None:
    """Adds an image with its true masks (H, W)."""
    count = np.sum(true, axis=0)
    start = time.process_time()
    rows = np.arange(len(boxes))
    masks = detector.masks(gray, Detections(boxes, np.zeros((len(boxes), 25)), rows, view))
    into.seconds += time.process_time() - start
    into.images += 1
    cuts = cut_cell(gray, [tuple(box) for box in boxes]) if thresholds else []
    for number, own in enumerate(true):
        if not own.any():
            continue
        into.shared.append(float((count[own] > 1).mean()))
        if detector.instance_masks is not None:
            mask = masks[number]
            found = np.zeros_like(own) if mask is None else fill(mask.rings, own.shape)
            into.masks.append(float((found & own).sum() / (found | own).sum()))
            into.area.append(float(found.sum() / own.sum()))
        if thresholds:
            cut = cuts[number]
            found = np.zeros_like(own)
            height, width = cut.mask.shape
            found[cut.y : cut.y + height, cut.x : cut.x + width] = cut.mask
            into.thresholds.append(float((found & own).sum() / (found | own).sum()))


def measure_outlines(detector: Detector, folder: Path, every: int, *, thresholds: bool) -> Measured:
    """Measures on LabelMe files."""
    measured = Measured()
    for gray, polygons in labelme(folder, every):
        true = [fill([np.reshape(p, (-1, 2)).tolist()], gray.shape) for p in polygons]
        corners = [np.reshape(p, (-1, 2)) for p in polygons]
        boxes = np.array([[*c.min(axis=0), *c.max(axis=0)] for c in corners])
        view = make_view(gray, detector.view)
        measure(detector, gray, true, boxes, view=view, into=measured, thresholds=thresholds)
    return measured


def measure_composed(
    detector: Detector, root: Path, split: str, images: int, *, thresholds: bool
) -> Measured:
    """Measures on images of a data set whose isolated chromosomes are put across each other."""
    measured = Measured()
    coco = read_split(root, split)
    dicts, outlines = to_dicts(coco, root), outlined(coco)
    chosen = np.unique(np.linspace(0, len(dicts) - 1, min(images, len(dicts))).astype(int))
    for number in chosen.tolist():
        spread = read_spread(
            dicts[number],
            outlines[dicts[number]["image_id"]],
            chromosome_size=detector.view.chromosome_size,
            max_size=detector.view.max_size,
        )
        if spread is None:
            continue
        image, placed = compose(spread, Crowding(), np.random.default_rng(number))
        true = []
        for each in placed:
            whole = np.zeros(image.shape, bool)
            x, y = each.corner
            whole[y : y + each.mask.shape[0], x : x + each.mask.shape[1]] = each.mask
            true.append(whole)
        boxes = np.array([each.box for each in placed])
        height, width = image.shape
        view = View(image, 1.0, (0, 0, width, height), False, True, "composed")
        measure(detector, image, true, boxes, view=view, into=measured, thresholds=thresholds)
    return measured


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ckpt", help="checkpoint with masks; the included one by default")
    parser.add_argument("--outlines", type=Path, help="folder of LabelMe files")
    parser.add_argument("--every", type=int, default=1, help="of the files, only each n-th")
    parser.add_argument("--data", type=Path, help="data set in the internal layout, to compose of")
    parser.add_argument("--split", default="val", help="of the data set")
    parser.add_argument("--images", type=int, default=60, help="of the data set, evenly spaced")
    parser.add_argument("--no-thresholds", action="store_true", help="leave the comparison out")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    detector = load_detector(options.ckpt, device="cpu")
    thresholds = not options.no_thresholds
    if options.outlines is not None:
        print(
            measure_outlines(
                detector, options.outlines, options.every, thresholds=thresholds
            ).report()
        )
    if options.data is not None:
        print(
            measure_composed(
                detector, options.data, options.split, options.images, thresholds=thresholds
            ).report()
        )
    return 0


if __name__ == "__main__":
    run_cli(main)
