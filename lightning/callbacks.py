"""Lightning callbacks: progress with time left, images a second."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar


def format_duration(seconds: float) -> str:
    """Formats seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, with the learning rate and the time left for the whole training."""

    def __init__(self, refresh_rate: int = 1, process_position: int = 0) -> None:
        super().__init__(refresh_rate=refresh_rate, process_position=process_position)
        self._start: tuple[float, int] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes when and at which step training began; a resumed one does not begin at zero."""
        super().on_train_start(trainer, pl_module)
        self._start = (time.monotonic(), trainer.global_step)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Adds ``lr`` and ``eta`` to what the bar shows, and drops W&B's version number."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        if trainer.optimizers:
            items["lr"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.1e}"
        total = trainer.estimated_stepping_batches if trainer.training else 0
        if self._start and total and total != float("inf"):
            began, first = self._start
            done = trainer.global_step - first
            if done > 0:
                left = (time.monotonic() - began) / done * (total - trainer.global_step)
                items["eta"] = format_duration(left)
        return items


class Throughput(Callback):
    """Logs the step time and images a second, and the total of both.

    Attributes:
        seconds: wall time of the training batches so far, without validation.
        images: training images seen by this process.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.images = 0
        self._last: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock before the first batch is loaded."""
        self._last = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Counts a batch, the wait for its data included."""
        now = time.monotonic()
        if self._last is not None:
            elapsed = now - self._last
            self.seconds += elapsed
            self.images += len(batch)
            pl_module.log("time/step_seconds", elapsed, batch_size=len(batch))
            pl_module.log("time/images_per_second", len(batch) / elapsed, batch_size=len(batch))
        self._last = now
