"""Lightning callbacks: progress with time left, images a second, state of the optimizer."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, TQDMProgressBar
from torch.optim import Optimizer

from deepacc_lightning.training.schedule import warmup_length

GIB = 2**30


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


class WeightAverage(EMAWeightAveraging):
    """Lightning's moving average of weights, begun when the learning rate's warm-up ends.

    Args:
        decay: weight of the past in a step.
        warmup_steps: of the schedule, which cuts them for a very short training.
    """

    def __init__(self, decay: float, warmup_steps: int) -> None:
        super().__init__(decay=decay)
        self.warmup_steps = warmup_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Works out the first step that counts."""
        steps = int(trainer.estimated_stepping_batches)
        self.update_starting_at_step = warmup_length(self.warmup_steps, steps)


class Throughput(Callback):
    """Logs the step time, images a second and the wait for data, and keeps totals.

    ``time/step_seconds`` is the wall time from the end of one batch to that of the next, and
    ``time/data_wait_fraction`` the share of it that passed before the batch was here, its way to
    the device included. ``time/images_per_second`` is of all processes together.

    Attributes:
        seconds: wall time of the training batches so far, without validation.
        images: training images seen by this process.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.images = 0
        self._last: float | None = None
        self._batch_came: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the totals, which a resumed training adds to."""
        return {"seconds": self.seconds, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the totals of a checkpoint."""
        self.seconds, self.images = state_dict["seconds"], state_dict["images"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock before the first batch is loaded."""
        self._last = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Notes that the batch has come."""
        self._batch_came = time.monotonic()

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
        if self._last is not None and self._batch_came is not None:
            elapsed = now - self._last
            self.seconds += elapsed
            self.images += len(batch)
            if is_written(trainer, done=True):
                values = {
                    "time/step_seconds": elapsed,
                    "time/images_per_second": len(batch) * trainer.world_size / elapsed,
                    "time/data_wait_fraction": (self._batch_came - self._last) / elapsed,
                }
                pl_module.log_dict(values, batch_size=len(batch))
        self._last = now


class StepStatistics(Callback):
    """Logs learning rate, gradient norm and, on a GPU, its memory.

    ``train/lr`` is the rate of a step, ``train/grad_norm`` the Euclidean norm of all gradients
    before clipping, averaged over processes and accumulated batches as the optimizer gets them.
    ``gpu/peak_allocated_gib`` and ``gpu/peak_reserved_gib`` are the most that tensors took, and
    that torch held, since the process began. Each is found only at steps that loggers write.
    """

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Logs what is known once all gradients are there."""
        if not is_written(trainer):
            return
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        values: dict[str, Any] = {
            "train/lr": optimizer.param_groups[0]["lr"],
            "train/grad_norm": torch.nn.utils.get_total_norm(gradients),
        }
        device = pl_module.device
        if device.type == "cuda":
            values["gpu/peak_allocated_gib"] = torch.cuda.max_memory_allocated(device) / GIB
            values["gpu/peak_reserved_gib"] = torch.cuda.max_memory_reserved(device) / GIB
        pl_module.log_dict(values)


def is_written(trainer: pl.Trainer, *, done: bool = False) -> bool:
    """Says whether loggers will write what is logged in this step.

    Args:
        trainer: the trainer.
        done: whether the step is counted already.
    """
    steps: int = trainer.global_step if done else trainer.global_step + 1
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return steps % every == 0
