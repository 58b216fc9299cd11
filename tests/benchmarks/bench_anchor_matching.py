"""Anchor matching against Detectron2's matrix of all pairs, in turn.

46 chromosomes and the anchors of the ``lab`` scale on an image of 672 x 880 pixels; both give the
same labels.

Run as a script: ``python tests/benchmarks/bench_anchor_matching.py``.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, pairwise_iou
from measurement import Measurement

from deepacc_d2.modeling.anchor_matching import match

GOAL = 0.2
HEIGHT, WIDTH = 672, 880


def run(turns: int = 15) -> list[Measurement]:
    """Times both in turn and returns the ratio of their medians."""
    generator = DefaultAnchorGenerator(
        sizes=[[20, 30, 42], [58, 80, 110]], aspect_ratios=[[0.45, 1.0, 2.2]], strides=[8, 16]
    )
    maps = [torch.zeros(1, 1, HEIGHT // s, WIDTH // s) for s in (8, 16)]
    anchors = Boxes.cat(generator(maps))
    torch.manual_seed(0)
    corner = torch.rand(46, 2) * torch.tensor([WIDTH - 90.0, HEIGHT - 90.0])
    truth = Boxes(torch.cat([corner, corner + torch.rand(46, 2) * 60 + 20], dim=1))
    matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)
    ours, theirs = [], []
    for turn in range(turns + 1):
        began = time.perf_counter()
        a = match(matcher, truth.tensor, anchors.tensor, generator.num_anchors[0])
        middle = time.perf_counter()
        b = matcher(pairwise_iou(truth, anchors))
        ended = time.perf_counter()
        if not all(torch.equal(x, y) for x, y in zip(a, b, strict=True)):
            raise AssertionError("the labels differ")
        if turn > 0:  # the first one warms up
            ours.append(middle - began)
            theirs.append(ended - middle)
    return [
        Measurement(
            name="anchor matching / Detectron2's",
            value=float(np.median(np.array(ours) / np.array(theirs))),
            goal=f"<= {GOAL}",
            unit="x",
            how=f"time for 46 boxes, {len(anchors)} anchors, same labels, median of {turns} turns",
            details={
                "ours_seconds": float(np.median(ours)),
                "detectron2_seconds": float(np.median(theirs)),
                "threads": torch.get_num_threads(),
            },
        )
    ]


if __name__ == "__main__":
    print(run()[0])
