"""RoIAlign, forward and backward, against torchvision's CPU kernel, in turn.

The shapes are those of ``conf/scale/quick.yaml`` on a batch of four 640-pixel images: 96 channels
at stride 4, 128 regions an image of the size of chromosomes, channels-last float32.

Run as a script: ``python tests/benchmarks/bench_roi_align.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from measurement import Measurement
from torchvision.ops import roi_align as torchvision_roi_align

from deepacc_d2.modeling.roi_align import roi_align

GOAL = 0.5


def _seconds(pool: Callable[[torch.Tensor], torch.Tensor], maps: torch.Tensor) -> float:
    own = maps.clone(memory_format=torch.channels_last).requires_grad_()
    began = time.perf_counter()
    pooled = pool(own)
    pooled.backward(torch.ones_like(pooled))
    return time.perf_counter() - began


def run(turns: int = 9) -> list[Measurement]:
    """Times both kernels in turn and returns the ratio of their medians."""
    torch.manual_seed(0)
    maps = torch.randn(4, 96, 160, 160).contiguous(memory_format=torch.channels_last)
    corner = torch.rand(512, 2) * 560
    boxes = torch.cat([corner, corner + torch.rand(512, 2) * 60 + 20], dim=1)
    rois = torch.cat([torch.arange(4.0).repeat_interleave(128)[:, None], boxes], dim=1)
    ours, theirs = [], []
    for turn in range(turns + 1):
        a = _seconds(lambda m: roi_align(m, rois, 7, 0.25, 2), maps)
        b = _seconds(lambda m: torchvision_roi_align(m, rois, 7, 0.25, 2, aligned=True), maps)
        if turn > 0:  # the first one warms up
            ours.append(a)
            theirs.append(b)
    return [
        Measurement(
            name="RoIAlign on a CPU / torchvision's",
            value=float(np.median(np.array(ours) / np.array(theirs))),
            goal=f"<= {GOAL}",
            unit="x",
            how=f"time forward and backward, 512 regions, 96 channels, median of {turns} turns",
            details={
                "ours_seconds": float(np.median(ours)),
                "torchvision_seconds": float(np.median(theirs)),
                "threads": torch.get_num_threads(),
            },
        )
    ]


if __name__ == "__main__":
    print(run()[0])
