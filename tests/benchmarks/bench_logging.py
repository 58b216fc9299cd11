"""What W&B's offline log adds to a training step.

Two trainings of the baseline at quick scale, same seed and images, take turns of ten steps, a
whole period of logging: one logs to the CSV file alone, the other to W&B offline as well. Images
and batches are smaller than usual, so that the cost is a larger part of a step. W&B works
in a process of its own, also while its training waits; so that this does not hide in the other's
turns, all the CPU time that it took is given too, as the share of its training's seconds.

Run as a script: ``python tests/benchmarks/bench_logging.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from measurement import Measurement, jpeg_dataset
from turns import Training, stage

GOAL = 1.02
IMAGES = 64
# The steps that are written are then within the turns, not at their ends.
WARM_UP = 5
SMALLER = ("scale.image_size=224", "scale.batch_size=2")
OFF, ON = "off", "on"


def run(rounds: int = 20, block: int = 10, extra: tuple[str, ...] = SMALLER) -> list[Measurement]:
    """Trains in turns.

    Args:
        rounds: turns of each.
        block: steps of a turn; a multiple of how often a step is logged.
        extra: overrides for both.
    """
    with jpeg_dataset(IMAGES) as (root, source), tempfile.TemporaryDirectory() as folder:
        shared = ["data=coco", f"data.root={root}", "scale.num_workers=0", *extra]
        trainings = [
            Training(OFF, ["logger=csv", *shared], rounds),
            Training(ON, ["logger=default", "logger.wandb.offline=true", *shared], rounds),
        ]
        with stage(trainings, Path(folder), warm_up=WARM_UP, block=block) as turns:
            for number in range(rounds):
                # In the order off, on, on, off: a steady drift favors neither.
                for name in (OFF, ON) if number % 2 == 0 else (ON, OFF):
                    turns.turn(name)
            took = {name: turns.blocks(name, rounds) for name in (OFF, ON)}
        written = [p.stat().st_size for p in turns.run_dir(ON).rglob("run-*.wandb")]
    assert len(written) == 1, "W&B kept no offline run"
    off, on = (np.array([b["seconds"] for b in took[name]]) for name in (OFF, ON))
    cpu_off, cpu_on = (np.array([b["cpu_seconds"] for b in took[name]]) for name in (OFF, ON))
    service = sum(b["children_cpu_seconds"] for b in took[ON])
    ratios = on / off
    error = float(np.std(ratios, ddof=1) / np.sqrt(rounds))
    return [
        Measurement(
            name="training step with W&B offline / with the CSV log alone",
            value=float(np.median(ratios)),
            goal=f"<= {GOAL}",
            unit="x",
            how=f"two trainings in turn, median of {rounds} pairs of {block} steps (standard error "
            f"{error:.3f}), one of them logged; CPU time: {cpu_on.sum() / cpu_off.sum():.3f}, and "
            f"{service / on.sum():.1%} of a step in W&B's own process",
            details={
                "seconds_a_step_off": float(np.median(off)) / block,
                "seconds_a_step_on": float(np.median(on)) / block,
                "ratios": ratios.tolist(),
                "standard_error": error,
                "ratio_of_cpu_time": float(cpu_on.sum() / cpu_off.sum()),
                "wandb_process_cpu_share": float(service / on.sum()),
                "bytes_written": written[0],
                "images": source,
            },
        )
    ]


if __name__ == "__main__":
    print(*run(), sep="\n")
