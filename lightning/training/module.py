"""The LightningModule around a Detectron2 detector; the detector itself knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.optim import Optimizer

from deepacc_d2.detection.evaluator import ChromosomeEvaluator
from deepacc_d2.detection.network import least_score
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.evaluation.types import Metrics
from deepacc_d2.modeling import image_seeds
from deepacc_lightning.core.processes import check_same_everywhere
from deepacc_lightning.training.csv_logger import CSVLogger
from deepacc_lightning.training.random_state import rng_states, set_rng_states
from deepacc_lightning.training.resume import relocate
from deepacc_lightning.training.schedule import make_schedule, planned_steps, scaled_lr

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
        lr_scaling: how it grows with the images a step, see :func:`scaled_lr`.
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
        lr_scaling: str = "linear",
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
        self.lr_scaling = lr_scaling
        self.weight_decay_norm = weight_decay_norm
        self.config = config
        self.evaluator: ChromosomeEvaluator | None = None
        self.metrics: Metrics | None = None
        self._rng: dict[str, Any] | None = None
        self._position: dict[str, int] | None = None

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
        self._check_finite(losses, total)
        values = {f"train/{name}": value.detach() for name, value in losses.items()}
        latest = storage.latest()
        for source, name in LOGGED_STATISTICS.items():
            if source in latest:
                values[name] = torch.tensor(latest[source][0])
        values["train/loss"] = total.detach()
        self._log_step(values, len(batch))
        return total

    def _check_finite(self, losses: dict[str, Tensor], total: Tensor) -> None:
        finite = bool(torch.isfinite(total))
        if not finite:
            bad = {name: float(v) for name, v in losses.items() if not torch.isfinite(v)}
            what = str(bad or {"sum": float(total)})
        else:
            what = "a loss of another process is"
        # All processes end together: one that waits for another's gradients waits for long.
        together = self._trainer is not None and self.trainer.world_size > 1
        if together:
            finite = self.trainer.strategy.reduce_boolean_decision(finite, all=True)
        if not finite:
            raise diverged(self.global_step, what)

    def _log_step(self, values: dict[str, Tensor], batch_size: int) -> None:
        """Logs a step's numbers; of several processes their mean, where it will be written."""
        trainer = self.trainer
        # The step is counted after its last batch.
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        written = (trainer.global_step + 1) % every == 0
        if trainer.world_size > 1 and written:
            values = mean_over_processes(values, LOGGED_STATISTICS.values(), self.device)
        loss = values.pop("train/loss")
        self.log_dict(values, batch_size=batch_size)
        self.log("train/loss", loss, prog_bar=True, batch_size=batch_size)

    def on_validation_epoch_start(self) -> None:
        """Starts collecting detections."""
        self._start_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Starts collecting detections."""
        self._start_evaluation("test")

    def _start_evaluation(self, stage: str) -> None:
        coco = self.trainer.datamodule.coco(stage)  # type: ignore[attr-defined]
        limit = getattr(self.trainer, f"limit_{stage}_batches")
        part = isinstance(limit, int) or limit < 1.0
        self.evaluator = ChromosomeEvaluator(
            coco, least_score=least_score(self.model), only_seen=part
        )

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
        # Every process has the metrics of all images, and its checkpoint callback needs them.
        self.log_dict(summary)
        self.log(f"{prefix}_map50", summary[f"{prefix}/map50"], prog_bar=True, logger=False)

    def configure_optimizers(self) -> Any:
        """Makes the optimizer and its per-step schedule."""
        assert self.optimizer_factory is not None, "this module was built for evaluation only"
        groups = get_default_optimizer_params(self.model, weight_decay_norm=self.weight_decay_norm)
        optimizer = self.optimizer_factory(groups)
        batch = effective_batch(self.trainer)
        for group in optimizer.param_groups:
            group["lr"] = scaled_lr(group["lr"], batch, self.reference_batch_size, self.lr_scaling)
        schedule = make_schedule(
            optimizer,
            self.course,
            total_steps=planned_steps(self.trainer),
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

    def setup(self, stage: str) -> None:
        """Checks that all processes train the same model on the same data.

        Raises:
            DataError: they do not.
        """
        info = self.trainer.datamodule.info()  # type: ignore[attr-defined]
        check_same_everywhere(
            "data set", f"{info.fingerprint[:12]} in {info.root}", "give all nodes the same files"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the bare model weights, the config, and what resuming exactly needs.

        ``checkpoint["model"]`` is what Detectron2's ``DetectionCheckpointer`` looks for. It shares
        storage with ``state_dict``, so the file does not grow. Where weights are averaged, both
        are the averaged ones.
        """
        prefix = "model."
        checkpoint["model"] = {
            name.removeprefix(prefix): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(prefix)
        }
        checkpoint["deepacc_config"] = self.config
        checkpoint["deepacc_training"] = {
            "effective_batch": effective_batch(self.trainer),
            "accumulate_grad_batches": self.trainer.accumulate_grad_batches,
            "rng": rng_states(),
        }
        # What is logged up to here must not be lost if a killed run resumes from here.
        for logger in self.trainer.loggers:
            logger.save()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes where random numbers and loader stood, for when training starts.

        Raises:
            ConfigError: its training had another number of images a step, for which its schedule
                and its place in the epoch are meant.
        """
        if (self.config or {}).get("resume"):
            relocate(checkpoint, self.config["out"])  # type: ignore[index]
        known = checkpoint.get("deepacc_training")
        if known is None:
            return
        keys = ("effective_batch", "accumulate_grad_batches")
        before = tuple(known[key] for key in keys)
        now = (effective_batch(self.trainer), self.trainer.accumulate_grad_batches)
        if before != now:
            raise ConfigError(
                f"the checkpoint is of a training with {before[0]} images a step "
                f"({before[1]} accumulated batches), this one has {now[0]} ({now[1]}): use as many "
                "processes and images as it had, or only its weights by init_weights="
            )
        position = _loader_state(checkpoint)
        self._rng, self._position = known["rng"], position

    def on_train_start(self) -> None:
        """Goes on with the random numbers of the checkpoint, if there was one, and its curves."""
        if self._rng is not None:
            set_rng_states(self._rng)
            self._rng = None
        if self._position is not None:
            # Lightning would do it had the schedule not asked for the number of batches before.
            loader: Any = self.trainer.train_dataloader
            loader.load_state_dict(self._position)
            self._position = None
        for logger in self.trainer.loggers:
            if isinstance(logger, CSVLogger):
                logger.forget_from(self.trainer.global_step)


def mean_over_processes(
    values: dict[str, Tensor], optional: Iterable[str], device: torch.device
) -> dict[str, Tensor]:
    """Averages scalars over all processes, in one message: each alone would wait for the slowest.

    Args:
        values: scalars by name, the same names in every process.
        optional: names that a process may lack; averaged over those that have them.
        device: where the processes' group sends from.
    """
    names = sorted({*values, *optional})
    missing = torch.tensor(float("nan"))
    own = torch.stack([values.get(name, missing).to(device).float() for name in names])
    there = (~own.isnan()).float()
    sums = torch.stack([own.nan_to_num(0.0), there])
    torch.distributed.all_reduce(sums)
    return {
        name: total / count for name, total, count in zip(names, *sums, strict=True) if count > 0
    }


def effective_batch(trainer: pl.Trainer) -> int:
    """Returns the images of an optimizer step, over all devices and accumulated batches."""
    batch: int = trainer.datamodule.batch_size  # type: ignore[attr-defined]
    return batch * trainer.world_size * trainer.accumulate_grad_batches


def _loader_state(checkpoint: dict[str, Any]) -> dict[str, int] | None:
    states = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
    return states[0] if states else None
