"""``bf16-mixed`` against ``32-true``: time of a step, and what the training learns.

Two trainings of the baseline at quick scale, same seed, images and schedule, take turns of a few
steps; both are tested at the end. They are short: what is compared is whether bf16 learns as fast,
not how good either gets. A third one in fp32 with another seed, which is not timed, shows how much
of a difference is chance.

Run as a script: ``python tests/benchmarks/bench_precision.py``.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
from measurement import Measurement, jpeg_dataset
from turns import Training, stage

from deepacc_lightning.core.config import auto_precision

IMAGES, TEST_IMAGES = 64, 16
WARM_UP = 3
BF16, FP32, OTHER_SEED = "bf16", "fp32", "fp32 of another seed"


def run(rounds: int = 12, block: int = 8, extra: tuple[str, ...] = ()) -> list[Measurement]:
    """Trains in turns; nothing where the device has no bf16 instructions.

    Args:
        rounds: turns of each.
        block: steps of a turn.
        extra: overrides for all.
    """
    if auto_precision() != "bf16-mixed":
        print("no bf16 instructions here: skipped", end=" ", flush=True)
        return []
    with (
        jpeg_dataset(IMAGES, TEST_IMAGES) as (root, source),
        tempfile.TemporaryDirectory() as folder,
    ):
        shared = ["data=coco", f"data.root={root}", "logger=csv", "scale.num_workers=0"]
        shared += ["test=true", "trainer.log_every_n_steps=1"]
        # The default of 200 steps would be most of this training.
        shared += ["optim.warmup_steps=20", *extra]
        trainings = [
            Training(BF16, ["trainer.precision=bf16-mixed", *shared], rounds),
            Training(FP32, ["trainer.precision=32-true", *shared], rounds),
            Training(OTHER_SEED, ["trainer.precision=32-true", "seed=1", *shared], rounds),
        ]
        with stage(trainings, Path(folder), warm_up=WARM_UP, block=block) as turns:
            for number in range(rounds):
                for name in (BF16, FP32) if number % 2 == 0 else (FP32, BF16):
                    turns.turn(name)
                turns.turn(OTHER_SEED)
            took = {name: turns.blocks(name, rounds) for name in (BF16, FP32)}
        learned = {t.name: _learned(turns.run_dir(t.name), block) for t in trainings}
    bf16, fp32 = (np.array([b["seconds"] for b in took[name]]) for name in (BF16, FP32))
    steps = WARM_UP + rounds * block
    details = {"steps": steps, "learned": learned, "images": source}
    return [
        Measurement(
            name="training step in bf16-mixed / in fp32",
            value=float(np.median(bf16 / fp32)),
            goal="-",
            unit="x",
            how=f"two trainings in turn, median of {rounds} pairs of {block} steps",
            details={
                "seconds_a_step_bf16": float(np.median(bf16)) / block,
                "seconds_a_step_fp32": float(np.median(fp32)) / block,
                "ratios": (bf16 / fp32).tolist(),
            },
        ),
        Measurement(
            name="loss at the end in bf16-mixed / in fp32",
            value=learned[BF16]["loss"] / learned[FP32]["loss"],
            goal="-",
            unit="x",
            how=f"mean of the last {block} of {steps} steps, same seed; another seed / fp32: "
            f"{learned[OTHER_SEED]['loss'] / learned[FP32]['loss']:.3g}",
            details=details,
        ),
        Measurement(
            name="map50 in bf16-mixed less that in fp32",
            value=learned[BF16]["map50"] - learned[FP32]["map50"],
            goal="-",
            unit="points",
            how=f"after these {steps} steps, of a training that has barely begun; fp32: "
            f"{learned[FP32]['map50']:.3g}, another seed less fp32: "
            f"{learned[OTHER_SEED]['map50'] - learned[FP32]['map50']:+.3g}",
        ),
    ]


def _learned(run_dir: Path, last: int) -> dict[str, float]:
    """Returns the mean loss of the last steps, and the metrics of the test split."""
    with (run_dir / "csv" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]
    metrics = json.loads((run_dir / "test" / "metrics.json").read_text(encoding="utf-8"))
    found = {k: float(metrics[k]) for k in ("map50", "acc", "recall") if k in metrics}
    return {"loss": float(np.mean(losses[-last:])), **found}


if __name__ == "__main__":
    print(*run(), sep="\n")
