"""A callback for runs of which one process fails; imported by their config."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from deepacc_d2.errors import DataError


class FailInProcess(Callback):
    """Ends the second process at a step, or says who is there and waits.

    Args:
        how: ``error`` (of a user), ``bug``, ``kill``, or ``wait``: every process writes its number
            into a folder and takes a second for each step.
        folder: for ``wait``.
        test: in the final test instead of the training.
    """

    def __init__(self, how: str, folder: str = "", test: bool = False) -> None:
        self.how = how
        self.folder = folder
        self.test = test

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 1 and not self.test:
            self.act(trainer)

    def on_test_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.test:
            self.act(trainer)

    def act(self, trainer: pl.Trainer) -> None:
        if self.how == "wait":
            (Path(self.folder) / f"{trainer.global_rank}").write_text(str(os.getpid()))
            time.sleep(120)
        if trainer.global_rank != 1:
            return
        if self.how == "error":
            raise DataError("image 7.png is cut short: replace it")
        if self.how == "bug":
            raise ZeroDivisionError("division by zero")
        os.kill(os.getpid(), signal.SIGKILL)
