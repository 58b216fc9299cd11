"""The processes of a run next to the main one: none is left behind or fails unnoticed.

Lightning would start them itself, and kill the main process as soon as one fails, so that nothing
says what the run came to. Here the main process ends by itself, with its record written and the
other's exit status.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import LightningEnvironment

from deepacc_d2.errors import UserError
from deepacc_lightning.core.processes import DisagreementError, started_by_others

# Strategies whose processes are no runs of the command, but copies of the main one.
_COPIES = ("spawn", "fork", "notebook")
INTERVAL = 0.5
"""Seconds between two looks at the other processes."""
GRACE = 20.0
"""Seconds that the main process has to notice the loss by itself. Not every backend reports it."""
# What torch says where the process at the other end is gone.
_CONNECTION = re.compile(
    r"gloo|nccl|connection|broken pipe|socket|tcpstore|\bpeer\b|\bstore\b", re.IGNORECASE
)


class ChildFailedError(UserError):
    """Another process of the run failed.

    Args:
        rank: its rank on this machine.
        returncode: of the process, as of ``subprocess``.
    """

    def __init__(self, rank: int, returncode: int) -> None:
        self.status = returncode if returncode > 0 else 128 - returncode
        if returncode > 0:
            text = f"process {rank} failed with exit status {returncode}: its own lines say why"
        else:
            name = signal.Signals(-returncode).name
            text = f"process {rank} was ended by {name}: is there enough memory for all processes?"
        super().__init__(text)


def failed(children: Sequence[subprocess.Popen[Any]]) -> ChildFailedError | None:
    """Returns the first of some processes that has failed; None if none has."""
    for rank, child in enumerate(children, start=1):
        if child.poll():
            return ChildFailedError(rank, child.returncode)
    return None


def cause(
    error: BaseException, children: Sequence[subprocess.Popen[Any]], seconds: float = 15.0
) -> ChildFailedError | None:
    """Returns the loss of another process that an error of this one comes from, if it does.

    Args:
        error: of this process.
        children: the others.
        seconds: to wait for one to end: its connection breaks before that.
    """
    if not isinstance(error, RuntimeError) or not _CONNECTION.search(str(error)):
        return None
    until = time.monotonic() + seconds
    while (found := failed(children)) is None and time.monotonic() < until:
        if all(child.poll() == 0 for child in children):
            return None
        time.sleep(0.1)
    return found


class ProcessesOfCommand(LightningEnvironment):
    """Each device after the first of a machine gets a process that runs the same command again."""

    @property
    def creates_processes_externally(self) -> bool:
        """Says that Lightning has none to start."""
        return True

    def start(self, trainer: pl.Trainer) -> list[subprocess.Popen[Any]]:
        """Starts this machine's other processes.

        Args:
            trainer: of the main process.

        Returns:
            They; none if this is one of them, if the user starts them all, or with one device.
        """
        if super().creates_processes_externally:
            return []
        environment = {
            **os.environ,
            "MASTER_ADDR": self.main_address,
            "MASTER_PORT": str(self.main_port),
            "NODE_RANK": str(self.node_rank()),
            "WORLD_SIZE": str(trainer.world_size),
        }
        return [
            subprocess.Popen(_command(), env={**environment, "LOCAL_RANK": str(rank)})
            for rank in range(1, trainer.num_devices)
        ]


def _command() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name] if spec else [str(Path(sys.argv[0]).resolve())]
    return [sys.executable, *program, *sys.argv[1:]]


def process_plugins(strategy: object = "auto") -> list[Any]:
    """Returns the plugin of a trainer whose processes :func:`children_end_too` starts.

    It is left out where torchrun or a cluster's scheduler started them, and where they are copies
    of the main process, as in a notebook.

    Args:
        strategy: Lightning's, by name or as a config's node.
    """
    copies = hasattr(sys, "ps1") or any(kind in str(strategy) for kind in _COPIES)
    return [] if copies or started_by_others() else [ProcessesOfCommand()]


@contextmanager
def children_end_too(
    trainer: pl.Trainer, on_loss: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Starts a run's other processes; they end where this one fails, and this one where they do.

    Args:
        trainer: the trainer, with the plugin of :func:`process_plugins`.
        on_loss: called where this process has to be ended without cleaning up, since it does not
            return from a call that waits for the lost one.

    Raises:
        ChildFailedError: another process failed, which explains an error of this one.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    children: list[subprocess.Popen[Any]] = []
    if isinstance(environment, ProcessesOfCommand):
        children = environment.start(trainer)
    if not children:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_watch, args=(children, over, on_loss), daemon=True).start()
    try:
        yield
    except BaseException as error:
        lost = cause(error, children)
        # They would wait for this one in the middle of a step.
        if not isinstance(error, DisagreementError):
            for child in children:
                child.kill()
        if lost is not None:
            raise lost from error
        raise
    finally:
        over.set()


def _watch(
    children: Sequence[subprocess.Popen[Any]],
    over: threading.Event,
    on_loss: Callable[[], object],
) -> None:
    while (lost := failed(children)) is None:
        if over.wait(INTERVAL):
            return
    for child in children:
        if child.poll() is None:
            child.kill()
    if over.wait(GRACE):
        return
    on_loss()
    print(f"error: {lost}", file=sys.stderr, flush=True)
    os._exit(lost.status)
