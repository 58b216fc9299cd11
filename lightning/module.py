"""The LightningModule around a Detectron2 detector; the detector itself knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.optim import Optimizer

from deepacc_d2.errors import UserError
from deepacc_d2.evaluation.evaluator import ChromosomeEvaluator
from deepacc_d2.evaluation.types import Metrics
from deepacc_d2.modeling import image_seeds
from deepacc_lightning.schedule import make_schedule, scaled_lr

Batch = list[dict[str, Any]]
LOGGED_STATISTICS = {"fast_rcnn/fg_cls_accuracy": "train/fg_accuracy"}


class NonFiniteLossError(UserError):
    """A loss became infinite or not a number."""


def diverged(step: int, what: str) -> NonFiniteLossError:
    """Makes the error of a training step that gave infinite or undefined numbers."""
    return NonFiniteLossError(
        f"training diverged at step {step}: {what} not finite; the last good checkpoint is kept: "
        "lower optim.optimizer.lr or trainer.gradient_clip_val"
    )


class DetectionModule(pl.LightningModule):
    """Trains and evaluates a Detectron2 detector.

    Args:
        model: takes a list of Detectron2 input dicts; a loss dict in training, detections else.
        optimizer: a partial that takes parameter groups; its ``lr`` is the reference rate.
        course: an fvcore ``ParamScheduler`` over the fraction of training done.
        warmup_steps: optimizer steps of linear warm-up.
        warmup_start: factor on the rate at the first step.
        reference_batch_size: images a step that ``lr`` is meant for; null for no scaling.
        weight_decay_norm: weight decay of normalization layers and biases; null to treat them
            like any other weight.
        config: plain dict saved with each checkpoint, enough to build the model again.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: Callable[..., Optimizer] | None = None,
        course: Any = None,
        warmup_steps: int = 0,
        warmup_start: float = 1.0,
        reference_batch_size: int | None = None,
        weight_decay_norm: float | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.optimizer_factory = optimizer
        self.course = course
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.reference_batch_size = reference_batch_size
        self.weight_decay_norm = weight_decay_norm
        self.config = config
        self.evaluator: ChromosomeEvaluator | None = None
        self.metrics: Metrics | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the sum of the losses of a batch.

        Raises:
            NonFiniteLossError: names the step and the losses that are not finite.
        """
        with EventStorage(self.global_step) as storage, image_seeds(batch):
            try:
                losses: dict[str, Tensor] = self.model(batch)
            except FloatingPointError as error:  # Detectron2's RPN, before there is a loss
                raise diverged(self.global_step, "boxes or scores of the RPN") from error
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        if not torch.isfinite(total):
            bad = {name: float(v) for name, v in losses.items() if not torch.isfinite(v)}
            raise diverged(self.global_step, str(bad or {"sum": float(total)}))
        values = {f"train/{name}": value.detach() for name, value in losses.items()}
        latest = storage.latest()
        for source, name in LOGGED_STATISTICS.items():
            if source in latest:
                values[name] = torch.tensor(latest[source][0])
        self.log_dict(values, batch_size=len(batch))
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=len(batch))
        return total

    def on_validation_epoch_start(self) -> None:
        """Starts collecting detections."""
        self._start_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Starts collecting detections."""
        self._start_evaluation("test")

    def _start_evaluation(self, stage: str) -> None:
        coco = self.trainer.datamodule.coco(stage)  # type: ignore[attr-defined]
        self.evaluator = ChromosomeEvaluator(coco)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Detects on a batch of validation images."""
        self._detect(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Detects on a batch of test images."""
        self._detect(batch)

    def _detect(self, batch: Batch) -> None:
        assert self.evaluator is not None
        self.evaluator.process(batch, self.model(batch))

    def on_validation_epoch_end(self) -> None:
        """Computes and logs the metrics of the validation images."""
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Computes and logs the metrics of the test images."""
        self._finish_evaluation("test")

    def _finish_evaluation(self, prefix: str) -> None:
        assert self.evaluator is not None
        # The sanity check sees two images of an untrained model: nothing worth a log entry.
        if self.trainer.sanity_checking:
            return
        self.evaluator.evaluate()
        self.metrics = self.evaluator.metrics
        assert self.metrics is not None
        summary = {f"{prefix}/{k}": float(v) for k, v in self.metrics.summary().items()}
        self.log_dict(summary, rank_zero_only=True)
        self.log(f"{prefix}_map50", summary[f"{prefix}/map50"], prog_bar=True, logger=False)

    def configure_optimizers(self) -> dict[str, Any]:
        """Makes the optimizer and its per-step schedule."""
        assert self.optimizer_factory is not None, "this module was built for evaluation only"
        groups = get_default_optimizer_params(self.model, weight_decay_norm=self.weight_decay_norm)
        optimizer = self.optimizer_factory(groups)
        batch = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        batch *= self.trainer.world_size * self.trainer.accumulate_grad_batches
        for group in optimizer.param_groups:
            group["lr"] = scaled_lr(group["lr"], batch, self.reference_batch_size)
        schedule = make_schedule(
            optimizer,
            self.course,
            total_steps=int(self.trainer.estimated_stepping_batches),
            warmup_steps=self.warmup_steps,
            warmup_start=self.warmup_start,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def facts(self) -> dict[str, Any]:
        """Returns what ``run.json`` is to say of a kind of module beyond what holds for all."""
        return {}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Loads the ``model`` entry of a checkpoint."""
        self.model.load_state_dict(weights)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the bare model weights and the config.

        ``checkpoint["model"]`` is what Detectron2's ``DetectionCheckpointer`` looks for. It shares
        storage with ``state_dict``, so the file does not grow.
        """
        checkpoint["model"] = self.model.state_dict()
        checkpoint["deepacc_config"] = self.config
