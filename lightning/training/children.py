"""The processes that Lightning starts next to the main one: none is left behind or fails unnoticed.

Lightning kills the main process as soon as another one fails, so that nothing says what the run
came to. Here the main process ends by itself, with its record written and the other's exit status.
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
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers import subprocess_script

from deepacc_d2.errors import UserError
from deepacc_lightning.core.processes import DisagreementError

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


@contextmanager
def children_end_too(
    trainer: pl.Trainer, on_loss: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Ends the processes that Lightning started where this one fails, and this one where they do.

    Args:
        trainer: the trainer.
        on_loss: called where this process has to be ended without cleaning up, since it does not
            return from a call that waits for the lost one.

    Raises:
        ChildFailedError: another process failed, which explains an error of this one.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, subprocess_script._SubprocessScriptLauncher):
        yield
        return
    over = threading.Event()

    def observe(child_processes: list[subprocess.Popen[Any]]) -> None:
        threading.Thread(target=_watch, args=(child_processes, over, on_loss), daemon=True).start()

    lightnings = subprocess_script._launch_process_observer
    subprocess_script._launch_process_observer = observe
    try:
        yield
    except BaseException as error:
        lost = cause(error, launcher.procs)
        # They would wait for this one in the middle of a step.
        if not isinstance(error, DisagreementError):
            launcher.kill(signal.SIGKILL)
        if lost is not None:
            raise lost from error
        raise
    finally:
        over.set()
        subprocess_script._launch_process_observer = lightnings


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
