"""A callback for trainings that are to be stopped at a known step; imported by their config."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class SignalAtStep(Callback):
    """Sends a signal to its own process before a step's batch is trained on."""

    def __init__(self, name: str, step: int) -> None:
        self.number = signal.Signals[name]
        self.step = step
        self.sent = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.number)
