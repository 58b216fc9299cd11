"""Ctrl-C and SIGTERM end a training after the step in progress, with a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint

from deepacc_d2.errors import Terminated, end_on_sigterm

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def within_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Says whether more batches of this step are to come, whose gradients no checkpoint holds."""
    accumulated = (batch_idx + 1) % trainer.accumulate_grad_batches
    return accumulated != 0 and not trainer.is_last_batch


def log_step(trainer: pl.Trainer) -> None:
    """Logs the numbers of the step that ends.

    Lightning does so after the callbacks' hooks, too late for one that ends the training.
    """
    if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
        return
    numbers = {
        name: float(value)
        for name, value in trainer.logged_metrics.items()
        if name.startswith("train/")
    }
    for logger in trainer.loggers:
        # Lightning counts the steps of its loggers from zero.
        logger.log_metrics(
            {**numbers, "epoch": trainer.current_epoch}, step=trainer.global_step - 1
        )
        logger.save()


class TimedCheckpoint(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint`` within epochs, at places that can be resumed from.

    Not between the batches of a step; and not at an epoch's last batch, from where Lightning would
    continue without the epoch's validation: the checkpoint of the epoch's end follows soon.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Saves here if it is time to."""
        if not trainer.is_last_batch and not within_step(trainer, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class EndOnSignal(Callback):
    """Lets SIGTERM end a test or a prediction at once.

    Lightning's own handler waits for an end of the loop that looking at images does not have, and
    of several processes informs the others by a broadcast amid whatever they are computing.
    """

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the signal over; Lightning restores what was before."""
        end_on_sigterm()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Likewise."""
        end_on_sigterm()


class StopOnSignal(Checkpoint):
    """Saves a checkpoint and ends the training at the first Ctrl-C or SIGTERM, or once asked to.

    The step in progress is finished first: the middle of one is no state to resume from. At the end
    of an epoch its validation is finished too, since half a validation cannot be continued. A
    second signal ends the process at once, and leaves the last checkpoint as it is.

    Lightning counts this as a checkpoint callback, so that it runs after all others that change
    what is saved, such as averaging of weights.

    Args:
        path: of the checkpoint.
        asked: a file that asks for the end as Ctrl-C does, once it exists: so a command stops its
            jobs on every machine.
    """

    def __init__(self, path: str | Path, asked: str | Path | None = None) -> None:
        self.path = Path(path)
        self.asked = Path(asked) if asked else None
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over both signals; Lightning's own handler of SIGTERM ends mid-epoch unsaved."""
        self.received = None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self._give_back()
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self.received = signal.Signals(number)
        text = f"\n{self.received.name}: ending after this step; once more ends at once"
        # Not print(): the signal may have come in the middle of one.
        sys.__stderr__ and sys.__stderr__.write(text + "\n")

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Says whether any process is to end; all of them get the same answer."""
        if self.received is None and self.asked and self.asked.exists():
            self.received = signal.SIGINT
        own = self.received is not None
        return bool(trainer.strategy.reduce_boolean_decision(own, all=False))

    def _end(self) -> None:
        received = self.received or signal.SIGTERM
        self._give_back()
        raise Terminated if received == signal.SIGTERM else KeyboardInterrupt

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ends here unless the epoch ends as well, or gradients are still to be accumulated."""
        if within_step(trainer, batch_idx):
            return
        if self._asked(trainer) and not trainer.is_last_batch:
            log_step(trainer)
            trainer.save_checkpoint(self.path)
            self._end()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends here, after the epoch's validation."""
        if self._asked(trainer):
            trainer.save_checkpoint(self.path)
            self._end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the signals back to whoever had them."""
        self._give_back()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Gives the signals back to whoever had them."""
        self._give_back()
