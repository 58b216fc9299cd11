"""Training in two processes on the CPU (``trainer=ddp_sim``) against one.

All train the baseline at quick scale on as many images a process and step, in turns of a few
steps, images loaded in the process itself: one process with a thread for each core, one with one
thread, two of one thread each, the same without common batch norm statistics (which torch has on
GPUs; on the CPU they are our own code), and two trainings of one thread side by side that share
nothing. The last tell what two cores give without the engine: what they lose to each other (caches,
memory, clock) is not the engine's loss. Ratios of CPU time are kept next to those of seconds: other
load disturbs them less.

Run as a script: ``python tests/benchmarks/bench_processes.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from measurement import Measurement, jpeg_dataset
from turns import Training, stage

IMAGES = 64
WARM_UP = 3
ONE, SINGLE, OTHER = "one process", "one thread", "its neighbor"
TWO, APART = "two processes", "own batch norm"


def run(rounds: int = 6, block: int = 4, extra: tuple[str, ...] = ()) -> list[Measurement]:
    """Trains in turns.

    Args:
        rounds: in each, every arrangement trains a block.
        block: its steps.
        extra: overrides for all.
    """
    with jpeg_dataset(IMAGES) as (root, source), tempfile.TemporaryDirectory() as folder:
        shared = ["data=coco", f"data.root={root}", "logger=csv", "scale.num_workers=0", *extra]
        alone, ddp = [*shared, "trainer.accelerator=cpu"], ["trainer=ddp_sim", *shared]
        trainings = [
            Training(ONE, alone, rounds, threads=2),
            Training(SINGLE, alone, 2 * rounds, threads=1),
            Training(OTHER, alone, rounds, threads=1),
            Training(TWO, ddp, rounds, threads=1),
            Training(APART, [*ddp, "trainer.sync_batchnorm=false"], rounds, threads=1),
        ]
        with stage(trainings, Path(folder), warm_up=WARM_UP, block=block) as turns:
            arrangements = [(ONE,), (SINGLE,), (TWO,), (APART,), (SINGLE, OTHER)]
            seconds: dict[str, list[float]] = {names[-1]: [] for names in arrangements}
            cpu: dict[str, list[float]] = {names[-1]: [] for names in arrangements}
            for number in range(rounds):
                # Each arrangement comes after each other one, so that none inherits its caches.
                first = number % len(arrangements)
                for names in arrangements[first:] + arrangements[:first]:
                    took = turns.turn(*names)
                    # Two at a time are done when the slower is, as the steps of one training are.
                    seconds[names[-1]].append(max(t["seconds"] for t in took))
                    cpu[names[-1]].append(max(t["cpu_seconds"] for t in took))
    one, single, pair, two, apart = (
        np.array(seconds[name]) for name in (ONE, SINGLE, OTHER, TWO, APART)
    )
    work = {name: float(np.median(used)) for name, used in cpu.items()}
    how = f"steps in turn, median of {rounds} rounds of {block} steps"
    batch = _batch_size(extra)
    rates = {
        "one process of two threads": batch * block / one,
        "one process of one thread": batch * block / single,
        "two processes of one thread": 2 * batch * block / two,
        "two processes of one thread, own batch norm": 2 * batch * block / apart,
        "two trainings of one thread side by side": 2 * batch * block / pair,
    }
    details = {
        "images_per_second": {name: float(np.median(rate)) for name, rate in rates.items()},
        "images_per_process_and_step": batch,
        "seconds": seconds,
        "cpu_seconds_of_a_process": cpu,
        "images": source,
    }
    return [
        Measurement(
            name="two processes / twice one process (efficiency), a thread each",
            value=float(np.median(single / two)),
            goal="-",
            unit="x",
            how=f"images/s, {how}; by CPU time of a process: {work[SINGLE] / work[TWO]:.2f}",
            details=details,
        ),
        Measurement(
            name="two processes / two trainings side by side that share nothing",
            value=float(np.median(pair / two)),
            goal="-",
            unit="x",
            how="images/s; what gradients and batch norm over both cost; by CPU time of a "
            f"process: {work[OTHER] / work[TWO]:.2f}",
        ),
        Measurement(
            name="two processes, own batch norm / two trainings side by side",
            value=float(np.median(pair / apart)),
            goal="-",
            unit="x",
            how="images/s; what gradients alone cost; by CPU time of a process: "
            f"{work[OTHER] / work[APART]:.2f}",
        ),
        Measurement(
            name="two processes of a thread / one process of two threads",
            value=float(np.median(2 * one / two)),
            goal="-",
            unit="x",
            how="images/s",
        ),
        *(
            Measurement(
                name=f"training, {name}",
                value=float(np.median(rate)),
                goal="-",
                unit="images/s",
                how=f"{batch} images a process and step, on the CPU",
            )
            for name, rate in rates.items()
        ),
    ]


def _batch_size(overrides: tuple[str, ...]) -> int:
    from deepacc_lightning.core.config import compose_config

    overrides = ("scale=quick", "data=coco", "data.root=.", *overrides)
    return int(compose_config("train", overrides).scale.batch_size)


if __name__ == "__main__":
    print(*run(), sep="\n")
