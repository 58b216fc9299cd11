"""A very large job of ``make predict`` on a cluster: images are measured, time is simulated.

The cost of an image is measured here, read to written, on one thread, and so is what a process
needs before its first image. The rest is a simulation: images are drawn from the measured ones,
every worker has one core as fast as one of this machine, and some workers are lost and start again
with the images that have no record yet. It knows of no slow network and no crowded disk.

    python tests/benchmarks/cluster.py slides --images 1000000 --price 0.04
"""

from __future__ import annotations

import argparse
import heapq
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_predict import one_thread
from numpy.typing import NDArray
from tabulate import tabulate

from deepacc_d2.images.read import read_gray
from deepacc_d2.prediction.folder import open_folder
from deepacc_d2.prediction.inputs import list_images
from deepacc_d2.prediction.outputs import draw
from deepacc_d2.prediction.predictor import load_predictor
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.predict import drawings_of

LOAD = "from deepacc_d2.prediction.predictor import load_predictor; load_predictor(device='cpu')"
WORKERS = (16, 64, 256, 1024)
RAY_BATCH = 4


@dataclass(frozen=True)
class Costs:
    """What was measured.

    Attributes:
        start: seconds of a process before its first image.
        images: seconds of each image, (N,).
        bytes: written for an image, on average.
        files: of an image.
    """

    start: float
    images: NDArray[np.float64]
    bytes: float
    files: float


@dataclass(frozen=True)
class Plan:
    """A simulated job.

    Attributes:
        hours: from the start to the last image.
        core_hours: that all workers were held for until each had nothing left to do.
        busy: share of the workers' time until the end in which they worked.
    """

    hours: float
    core_hours: float
    busy: float


def measure(images: Sequence[Path], *, tta: int | None = None) -> Costs:
    """Predicts and draws images one by one on one thread, after one that is not counted."""
    drawings = drawings_of(compose_config("predict", ["images=unused"]))
    predictor = load_predictor(device="cpu", tta=tta)
    seconds: list[float] = []
    with one_thread(), tempfile.TemporaryDirectory() as root:
        folder = open_folder(Path(root) / "out", {"kind": "benchmark"}, overwrite=False)
        for path in (images[0], *images):
            began = time.process_time()
            gray = read_gray(path)
            cell = predictor.cell(gray, name=path.stem, path=str(path))
            error = draw(folder, gray, cell, drawings)
            if error:
                raise SystemExit(f"error: {path}: {error}")
            seconds.append(time.process_time() - began)
        written = [path for path in Path(root).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in written)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", LOAD], check=True)
    start = time.perf_counter() - began
    count = len({path.stem for path in images})
    return Costs(start, np.array(seconds[1:]), size / count, len(written) / count)


def simulate(
    costs: Costs, images: int, workers: int, batch: int, *, losses: float, new: bool, seed: int = 0
) -> Plan:
    """Hands batches of images to workers, each to the one that is free first.

    Args:
        costs: of an image and a start.
        images: of the job.
        workers: at a time, a core each.
        batch: images that a worker gets at a time: a task of a Slurm array, a batch of Ray's.
        losses: how often a worker is lost in an hour of work, on average. Another takes its place,
            which costs a start and the image that was lost.
        new: whether each batch is a process of its own, as in a Slurm array.
        seed: of the images drawn, and of the losses.
    """
    rng = np.random.default_rng(seed)
    sizes = np.full(-(-images // batch), batch)
    sizes[-1] -= sizes.sum() - images
    drawn = rng.choice(costs.images, images)
    work = np.add.reduceat(drawn, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    work = work + rng.poisson(work * losses / 3600) * (costs.start + costs.images.mean())
    free = [0.0 if new else costs.start] * workers
    for took in work + (costs.start if new else 0):
        heapq.heapreplace(free, free[0] + took)
    end, held = max(free), sum(free)
    return Plan(end / 3600, held / 3600, held / (end * workers))


def main() -> None:
    """Measures, simulates, and prints both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of images like those of the job")
    parser.add_argument("--images", type=int, default=1_000_000, help="of the job")
    parser.add_argument("--task", type=int, default=1000, help="images of a task of a Slurm array")
    parser.add_argument("--losses", type=float, default=0.05, help="of a worker in an hour")
    parser.add_argument("--price", type=float, help="of a core for an hour")
    parser.add_argument("--measured", type=int, default=40, help="images to measure")
    parser.add_argument("--tta", type=int, help="looks at an image; the checkpoint's by default")
    given = parser.parse_args()
    paths = [item.path for item in list_images(given.folder)][: given.measured]
    costs = measure(paths, tta=given.tta)
    print(
        f"measured on {len(paths)} images, one thread: {costs.images.mean():.2f} s an image "
        f"(standard deviation {costs.images.std():.2f}), {costs.start:.1f} s to start, "
        f"{costs.files:.1f} files and {costs.bytes / 1e6:.2f} MB an image"
    )
    print(
        f"{given.images:,} images: {costs.bytes * given.images / 1e12:.2f} TB in "
        f"{costs.files * given.images / 1e6:.1f} million files\n"
    )
    rows = []
    for workers in WORKERS:
        for name, batch, new in (("Slurm array", given.task, True), ("Ray", RAY_BATCH, False)):
            plan = simulate(
                costs, given.images, workers, batch, losses=given.losses, new=new, seed=0
            )
            price = given.price and plan.core_hours * given.price
            rows.append([workers, name, plan.hours, plan.core_hours, 100 * plan.busy, price])
    head = ("cores", "by", "hours", "core hours", "busy, %", "price")
    print(tabulate(rows, head, tablefmt="pipe", floatfmt=("", "", ".1f", ".0f", ".1f", ".0f")))


if __name__ == "__main__":
    main()
