"""Trainings that take turns on one machine, so that what disturbs one disturbs all.

Each is ``python -m deepacc_lightning.train`` in a process of its own, or in several. All are
started at once; after its warm-up each waits until it is let train its next few steps (a block),
which it times itself. So start-up is not timed, and a load that comes and goes meets all alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from deepacc_d2.files import write_json, write_text
from deepacc_lightning.core.config import quoted

POLL = 0.01
PATIENCE = 1800.0
"""Seconds that anything may take before it counts as stuck."""
NEVER = 10**6


class TakeTurns(Callback):
    """Makes a training wait for its turns, and times its blocks of steps.

    A block is timed from the end of the step before it to the end of its last one, so with the
    loading of its data.

    Args:
        folder: where ``go`` says how many blocks may be begun, and ``blocks.json`` what they took.
        warm_up: optimizer steps before the first block.
        block: steps of a block.
    """

    def __init__(self, folder: str, warm_up: int, block: int) -> None:
        self.folder = Path(folder)
        self.warm_up = warm_up
        self.block = block
        self.blocks: list[dict[str, float]] = []
        self._parent = os.getppid()
        self._began: tuple[float, float, float] | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ends a block, and begins the next when it is this training's turn."""
        step = trainer.global_step
        if step < self.warm_up or (step - self.warm_up) % self.block:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        if self._began is not None:
            names = ("seconds", "cpu_seconds", "children_cpu_seconds")
            took = (now - then for now, then in zip(_clocks(), self._began, strict=True))
            self.blocks.append(dict(zip(names, took, strict=True)))
        if trainer.is_global_zero:
            write_json(self.folder / "blocks.json", self.blocks)
        if step < trainer.max_steps:
            self._wait()
        self._began = _clocks()

    def _wait(self) -> None:
        go, began = self.folder / "go", time.monotonic()
        while not go.is_file() or int(go.read_text(encoding="utf-8")) <= len(self.blocks):
            # A killed benchmark could not end its trainings: they become another's children.
            if os.getppid() != self._parent or time.monotonic() - began > PATIENCE:
                raise RuntimeError("nobody lets this training continue")
            time.sleep(POLL)


def _clocks() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), _children_cpu_seconds()


def _children_cpu_seconds() -> float:
    """Returns the CPU time of the processes below this one, as Linux reports it, else NaN."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # The name in parentheses may hold anything; field 4 is the parent, 14 and 15 the time.
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid], used[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    if not parents:
        return float("nan")
    below, found = {os.getpid()}, 0
    while len(below) > found:
        found = len(below)
        below |= {pid for pid, parent in parents.items() if parent in below}
    ticks: int = sum(used.get(pid, 0) for pid in below - {os.getpid()})
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Training:
    """One that takes part.

    Attributes:
        name: among the others.
        overrides: of ``conf/train.yaml``.
        blocks: how many blocks it will train.
        threads: of each of its processes; null for the environment's or torch's own choice.
    """

    name: str
    overrides: list[str]
    blocks: int
    threads: int | None = None


@dataclass
class Stage:
    """Lets running trainings take their turns.

    Attributes:
        folder: holds a folder of each training, whose run directory is ``run`` in it.
        processes: by name.
        begun: blocks begun, by name.
    """

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]]
    begun: dict[str, int] = field(default_factory=dict)

    def turn(self, *names: str) -> list[dict[str, float]]:
        """Lets some train a block at the same time, the others wait.

        Returns:
            Of each, in their order, ``seconds``, ``cpu_seconds`` of its (main) process and
            ``children_cpu_seconds`` of those below it.

        Raises:
            RuntimeError: one of them ended, with what it printed last.
        """
        for name in names:
            self.begun[name] = self.begun.get(name, 0) + 1
            write_text(self.folder / name / "go", str(self.begun[name]))
        return [self.blocks(name, self.begun[name])[-1] for name in names]

    def blocks(self, name: str, count: int) -> list[dict[str, float]]:
        """Waits until a training has done that many blocks; returns all."""
        path, began = self.folder / name / "blocks.json", time.monotonic()
        while time.monotonic() - began < PATIENCE:
            ended = self.processes[name].poll() is not None
            if path.is_file():
                done: list[dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
                if len(done) >= count:
                    return done
            if ended:
                raise RuntimeError(f"training {name} ended early:\n{self._last_lines(name)}")
            time.sleep(POLL)
        raise TimeoutError(f"training {name} is stuck:\n{self._last_lines(name)}")

    def finish(self) -> None:
        """Waits until all have ended by themselves.

        Raises:
            RuntimeError: one failed.
        """
        for name, process in self.processes.items():
            if process.wait(PATIENCE):
                raise RuntimeError(f"training {name} failed:\n{self._last_lines(name)}")

    def run_dir(self, name: str) -> Path:
        """Returns a training's run directory."""
        return self.folder / name / "run"

    def _last_lines(self, name: str) -> str:
        text = (self.folder / name / "output.txt").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-20:])


@contextlib.contextmanager
def stage(trainings: list[Training], folder: Path, *, warm_up: int, block: int) -> Iterator[Stage]:
    """Starts trainings, yields when all have warmed up, and waits for their end.

    Args:
        trainings: those that take part.
        folder: for their files.
        warm_up: steps of each before its first block.
        block: steps of a block.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for training in trainings:
            running[training.name] = _start(training, folder / training.name, warm_up, block)
        made = Stage(folder, running)
        for training in trainings:
            made.blocks(training.name, 0)
        yield made
        made.finish()
    finally:
        for process in running.values():
            if process.poll() is None:
                # Its further processes too, which it started in its own group.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _start(training: Training, folder: Path, warm_up: int, block: int) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    here = str(Path(__file__).parent)
    command = [
        *(sys.executable, "-m", "deepacc_lightning.train"),
        *("scale=quick", "experiment=baseline", "test=false"),
        *training.overrides,
        f"out={quoted(folder / 'run')}",
        "trainer.max_epochs=-1",
        f"trainer.max_steps={warm_up + training.blocks * block}",
        # No validation and no checkpoint within the steps that are timed.
        f"trainer.check_val_every_n_epoch={NEVER}",
        *("callbacks.last_checkpoint=null", "callbacks.timed_checkpoint=null"),
        *("callbacks.progress=null", "+trainer.enable_progress_bar=false"),
        "+callbacks.turns._target_=turns.TakeTurns",
        f"+callbacks.turns.folder={quoted(folder)}",
        f"+callbacks.turns.warm_up={warm_up}",
        f"+callbacks.turns.block={block}",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, *_inherited("PYTHONPATH")])}
    if training.threads:
        environment["OMP_NUM_THREADS"] = str(training.threads)
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _inherited(name: str) -> list[str]:
    return [os.environ[name]] if os.environ.get(name) else []
