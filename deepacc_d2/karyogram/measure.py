"""Measures cutting, straightening and polarity: ``python -m deepacc_d2.karyogram.measure``.

On synthetic spreads against their ground truth, cut by a detector's masks in the true boxes, as
``make predict`` cuts, or by thresholds.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.errors import run_cli
from deepacc_d2.karyogram.marks import UNSURE_POLARITY
from deepacc_d2.karyogram.orientation.find import pose_of, turn
from deepacc_d2.karyogram.orientation.outlines import Outlines, cut_out, outlines_by
from deepacc_d2.karyogram.orientation.read import boxes_of
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


def measure_spread(
    image: NDArray[np.uint8],
    annotations: list[dict[str, Any]],
    into: Measured,
    outlines: Outlines | None = None,
) -> None:
    """Adds one synthetic spread, cut by its true boxes; see :func:`measure_synthetic`."""
    cuts = cut_out(image, boxes_of(annotations), outlines)
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


def measure_synthetic(
    spreads: int, seed: int = 100, *, outlines: Outlines | None = None
) -> Measured:
    """Draws spreads, each of another case and staining batch, and measures all chromosomes.

    Args:
        spreads: how many.
        seed: of them.
        outlines: finds those of the chromosomes; without, they are cut by thresholds.
    """
    config = SyntheticConfig(seed=seed, box_margin=4, cells_per_case=1, num_batches=max(spreads, 1))
    measured = Measured()
    for case in range(spreads):
        image, record = render_metaphase(config, case, 0)
        measure_spread(image, record["annotations"], measured, outlines)
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


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m deepacc_d2.karyogram.measure", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--spreads", type=int, default=100, help="synthetic spreads to draw")
    parser.add_argument("--seed", type=int, default=100, help="of the synthetic spreads")
    parser.add_argument("--ckpt", type=Path, help="detector whose masks cut; default: included")
    parser.add_argument("--thresholds", action="store_true", help="cut without masks")
    options = parser.parse_args()
    outlines = None if options.thresholds else outlines_by(options.ckpt)
    print(report(measure_synthetic(options.spreads, options.seed, outlines=outlines)))
    return 0


if __name__ == "__main__":
    run_cli(main)
