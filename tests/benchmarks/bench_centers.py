"""What pair centers, shrinkage, context and image statistics cost: ``deepacc`` / ``siamese_gia``.

Both are of one scale and of the same weights; only the kind of local center differs. They take
turns, each going first in every other turn, and a ratio is taken within a turn. Untrained scores
are low: the threshold is lowered until most classes have a pair, so that no work is left out.

First the forward pass of the heads from pooled features, then a whole image at SCALE=lab. The two
predictors' inference branch alone, which makes all of the difference, is in the details.

Run as a script: ``python tests/benchmarks/bench_centers.py``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from hydra.utils import instantiate
from measurement import Measurement
from torch import Tensor, nn

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.modeling import CellContext
from deepacc_d2.modeling.image_statistics import use_image_statistics
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.train import quiet

GOAL = 1.10
PRESETS = ("deepacc", "siamese_gia")
SIZE = (640, 832)
PROPOSALS = 1000
DELTA = 0.06
STATISTICS_SHARE = 0.5

Job = Callable[[], Any]


def build(preset: str, overrides: tuple[str, ...]) -> nn.Module:
    """Builds a detector of random weights, the same for every preset, whose centers are local."""
    data = ("data=coco", "data.root=/unused", "pixel_mean=228", "pixel_std=45")
    cfg = compose_config("train", [f"experiment={preset}", "scale=lab", *data, *overrides])
    torch.manual_seed(0)
    model: Any = instantiate(cfg.model)
    # At a small scale of the cosines many proposals share a class's scores.
    model.roi_heads.box_predictor.margin_branch.criterion.s = 30.0
    model.roi_heads.box_predictor.inference_branch.delta = DELTA
    return model.eval().to(memory_format=torch.channels_last)


def heads_of(model: Any) -> Job:
    """Returns the forward pass of box head and predictor on pooled features."""
    generator = torch.Generator().manual_seed(1)
    channels = model.backbone.output_shape()["p3"].channels
    pooled = torch.randn(PROPOSALS, channels, 7, 7, generator=generator)
    heads = model.roi_heads
    proposals = Instances(SIZE)
    corners = torch.rand(PROPOSALS, 2, generator=generator) * 600
    sides = 20 + 40 * torch.rand(PROPOSALS, 2, generator=generator)
    proposals.proposal_boxes = Boxes(torch.cat([corners, corners + sides], dim=1))
    return lambda: heads._predict_regions(heads.box_head(pooled), [proposals])


def image_of(model: nn.Module) -> Job:
    """Returns the detection on one image."""
    noise = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (1, *SIZE), generator=noise).byte()
    batch = [{"image": pixels, "height": SIZE[0], "width": SIZE[1]}]
    return lambda: model(batch)


def branch_of(model: Any) -> Job:
    """Returns the inference branch alone, on what :func:`heads_of` hands it."""
    taken: list[tuple[Tensor, ...]] = []
    branch = model.roi_heads.box_predictor.inference_branch
    hook = branch.register_forward_pre_hook(lambda _, inputs: taken.append(inputs))
    heads_of(model)()
    hook.remove()
    return lambda: branch(*taken[0])


def pairs_in(job: Job) -> int:
    """Returns how many classes have a pair."""
    return int((job().centers.partner >= 0).sum())


def compare(first: Job, second: Job, turns: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns wall and CPU seconds, (turns, 2) each; an untimed turn before them warms up."""
    rows = []
    for turn in range(turns + 1):
        row = np.zeros((2, 2))
        for which in (1, 0) if turn % 2 else (0, 1):
            began, cpu = time.perf_counter(), time.process_time()
            (first, second)[which]()
            row[:, which] = time.perf_counter() - began, time.process_time() - cpu
        rows.append(row)
    times = np.array(rows[1:])
    return times[:, 0], times[:, 1]


def measure(name: str, jobs: list[Job], turns: int, goal: str, how: str) -> Measurement:
    """Compares two jobs; the value is the median ratio of wall time."""
    wall, cpu = compare(jobs[0], jobs[1], turns)
    return Measurement(
        name=name,
        value=float(np.median(wall[:, 0] / wall[:, 1])),
        goal=goal,
        unit="x",
        how=f"{how}, in turn, median of {turns} turns",
        details={
            "ratio_of_cpu_time": float(np.median(cpu[:, 0] / cpu[:, 1])),
            "cpu_seconds": dict(zip(PRESETS, np.median(cpu, axis=0).tolist(), strict=True)),
            "threads": torch.get_num_threads(),
        },
    )


@torch.inference_mode()
def run(turns: int = 40, overrides: tuple[str, ...] = ()) -> list[Measurement]:
    """Measures all; other overrides are for trying it out."""
    quiet()
    models = [build(preset, overrides) for preset in PRESETS]
    weights = [model.state_dict() for model in models]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    pairs = pairs_in(heads_of(models[0]))
    assert pairs, "no class has a pair"
    what = f"{PROPOSALS} proposals, SCALE=lab, {pairs} pairs"
    heads = [heads_of(model) for model in models]
    images = [image_of(model) for model in models]
    branches = [branch_of(model) for model in models]
    pair = "deepacc's / siamese_gia's"
    with_context = copy.deepcopy(models[0])
    predictor: Any = with_context.roi_heads.box_predictor
    predictor.context = CellContext(predictor.bbox_pred.in_features, NUM_CLASSES).eval()
    use_image_statistics(with_context.backbone, STATISTICS_SHARE)
    contexts = [image_of(with_context), images[1]]
    return [
        measure(
            f"whole image, with cell context and image statistics: {pair}",
            contexts,
            turns,
            f"<= {GOAL}",
            f"one {SIZE} image, SCALE=lab",
        ),
        measure(
            f"whole image: {pair}", images, turns, f"<= {GOAL}", f"one {SIZE} image, SCALE=lab"
        ),
        measure(f"heads forward: {pair}", heads, turns, "-", what),
        measure(f"inference branch forward: {pair}", branches, turns, "-", what),
    ]


if __name__ == "__main__":
    for result in run():
        print(result)
