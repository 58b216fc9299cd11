"""Measures cutting, straightening and polarity: ``python -m deepacc_d2.karyogram.measure``.

On synthetic spreads against their ground truth; with ``--real DIR`` on a data set of real ones,
which say nothing about polarity, by how well the two homologs of a pair agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.bands import standard
from deepacc_d2.data.coco import load_coco_split
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.errors import run_cli
from deepacc_d2.images.read import read_gray
from deepacc_d2.karyogram.cut import Box, cut_cell
from deepacc_d2.karyogram.marks import UNSURE_POLARITY
from deepacc_d2.karyogram.orientation.find import pose_of, turn
from deepacc_d2.karyogram.polarity import profiles
from deepacc_d2.karyogram.straighten import straighten

# IoU with the true mask from which on a cut is right.
_WELL_CUT = 0.85


@dataclass
class Measured:
    """One list entry for each synthetic chromosome.

    Attributes:
        names: class.
        right: whether the p arm came up.
        confidence: that polarity was given.
        iou: of the cut's mask with the true one.
        ends: larger distance of the strip's two ends from the true telomeres, in body widths.
        centromere: distance of the centromere from the true one, in body widths.
        area: of the strip's mask over that of the true one.
    """

    names: list[str] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    centromere: list[float] = field(default_factory=list)
    area: list[float] = field(default_factory=list)


def boxes_of(annotations: Iterable[dict[str, Any]]) -> list[Box]:
    """Returns the XYXY boxes of COCO annotations."""
    return [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in annotations)]


def measure_spread(
    image: NDArray[np.uint8], annotations: list[dict[str, Any]], into: Measured
) -> None:
    """Adds one synthetic spread, cut by its true boxes."""
    cuts = cut_cell(image, boxes_of(annotations))
    straights = [straighten(cut) for cut in cuts]
    names = [CLASSES[annotation["category_id"] - 1] for annotation in annotations]
    for cut, straight, name, polarity, annotation in zip(
        cuts, straights, names, turn(straights, names), annotations, strict=True
    ):
        axis = straight.axis[::-1] if polarity.flip else straight.axis
        p, q = (complex(*tip) for tip in annotation["axis"])
        truth = coco_mask.decode(annotation["segmentation"]).astype(bool)
        mask = np.zeros_like(truth)
        height, width = cut.mask.shape
        mask[cut.y : cut.y + height, cut.x : cut.x + width] = cut.mask
        body = truth.sum() / max(abs(p - q), 1.0)
        place = complex(*pose_of(straight, polarity).centromere)
        into.names.append(name)
        into.right.append(
            abs(axis[0] - p) + abs(axis[-1] - q) < abs(axis[0] - q) + abs(axis[-1] - p)
        )
        into.confidence.append(polarity.confidence)
        into.iou.append(float((mask & truth).sum() / (mask | truth).sum()))
        tips = axis if into.right[-1] else axis[::-1]
        into.ends.append(max(abs(tips[0] - p), abs(tips[-1] - q)) / body)
        into.centromere.append(abs(place - complex(*annotation["centromere"])) / body)
        into.area.append(float(straight.mask.sum() / straight.zoom**2 / truth.sum()))


def measure_synthetic(spreads: int, seed: int = 100) -> Measured:
    """Draws spreads, each of another case and staining batch, and measures all chromosomes."""
    config = SyntheticConfig(seed=seed, box_margin=4, cells_per_case=1, num_batches=max(spreads, 1))
    measured = Measured()
    for case in range(spreads):
        image, record = render_metaphase(config, case, 0)
        measure_spread(image, record["annotations"], measured)
    return measured


def report(measured: Measured) -> str:
    """Returns the figures as text."""
    right, sure = np.array(measured.right), np.array(measured.confidence)
    names = np.array(measured.names)
    known = sure >= UNSURE_POLARITY
    whole = np.array(measured.iou) >= _WELL_CUT
    lines = [
        f"{len(names)} chromosomes",
        f"p arm up: {100 * right.mean():.1f} %",
        f"p arm up where the cut is right (IoU {_WELL_CUT}, {100 * whole.mean():.0f} % of all): "
        f"{100 * right[whole].mean():.1f} %",
        f"marked as uncertain: {100 * (~known).mean():.1f} %, of the others right: "
        f"{100 * right[known].mean():.1f} %, mean confidence {sure.mean():.3f}",
        "by class: " + ", ".join(f"{n} {100 * right[names == n].mean():.0f}" for n in CLASSES
                                 if (names == n).any()),
    ]  # fmt: skip
    for title, values in (
        ("IoU of the cut with the true mask", measured.iou),
        ("ends from the telomeres, in body widths", measured.ends),
        ("centromere off, in body widths", measured.centromere),
        ("strip's area over the true area", measured.area),
    ):
        low, middle, high = np.percentile(values, [5, 50, 95])
        lines.append(f"{title}: median {middle:.2f}, 5 % {low:.2f}, 95 % {high:.2f}")
    return "\n".join(lines)


def pair_agreement(root: Path, split: str, images: int) -> tuple[int, int]:
    """Counts pairs of homologs in a data set whose profiles agree better as they were turned.

    A pair is two annotations of one class in an image; profiles are those of the bands.

    Returns:
        Pairs that agree better as they were turned than with one of the two turned over, and all
        pairs.
    """
    coco = load_coco_split(root, split)
    own: dict[int, list[dict[str, Any]]] = {}
    for annotation in coco["annotations"]:
        own.setdefault(annotation["image_id"], []).append(annotation)
    agree = total = 0
    chosen = np.linspace(0, len(coco["images"]) - 1, min(images, len(coco["images"])))
    for number in np.unique(chosen.round().astype(int)):
        record = coco["images"][number]
        gray = read_gray(root / "images" / record["file_name"])
        annotations = own.get(record["id"], [])
        by_class: dict[int, list[NDArray[np.float64]]] = {}
        straights = [straighten(cut) for cut in cut_cell(gray, boxes_of(annotations))]
        classes = [annotation["category_id"] - 1 for annotation in annotations]
        polarities = turn(straights, [CLASSES[index] for index in classes])
        for index, straight, polarity in zip(classes, straights, polarities, strict=True):
            bands, _ = profiles(straight)
            along = bands[::-1] if polarity.flip else bands
            by_class.setdefault(index, []).append(standard(along))
        for pair in by_class.values():
            if len(pair) == 2:
                total += 1
                agree += bool(pair[0] @ pair[1] > pair[0] @ pair[1][::-1])
    return agree, total


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m deepacc_d2.karyogram.measure", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--spreads", type=int, default=100, help="synthetic spreads to draw")
    parser.add_argument("--seed", type=int, default=100, help="of the synthetic spreads")
    parser.add_argument("--real", type=Path, help="data set in the internal layout to use instead")
    parser.add_argument("--split", default="test", help="of the data set")
    parser.add_argument("--images", type=int, default=100, help="of the data set, evenly spaced")
    options = parser.parse_args()
    if options.real is None:
        print(report(measure_synthetic(options.spreads, options.seed)))
        return 0
    agree, total = pair_agreement(options.real, options.split, options.images)
    share = 100 * agree / max(total, 1)
    print(f"{agree} of {total} pairs ({share:.1f} %) agree better as turned than with one reversed")
    return 0


if __name__ == "__main__":
    run_cli(main)
