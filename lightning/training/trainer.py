"""Builds Lightning's trainer from its node, with the plugins that every training has."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.plugins.layer_sync import LayerSync, TorchSyncBatchNorm
from torch import distributed, nn

from deepacc_d2.distributed import GatheredBatchNorm2d, gather_batch_norm
from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.config import instantiate_all
from deepacc_lightning.training.checkpoint_io import SafeCheckpointIO
from deepacc_lightning.training.children import process_plugins
from deepacc_lightning.training.stopping import EndOnSignal
from deepacc_lightning.training.trainer_flags import check_flags, with_overfitting


class GatherBatchNorm(LayerSync):
    """Makes batch norms gather their statistics over all processes, on any device.

    Lightning's own switch, ``sync_batchnorm``, takes torch's ``SyncBatchNorm``, which wants a GPU.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Exchanges the batch norms within a model."""
        return gather_batch_norm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """Makes them plain again."""
        for part in model.modules():
            if isinstance(part, GatheredBatchNorm2d):
                part.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
        return model


def uses_gpu(trainer: Any) -> bool:
    """Says whether a ``trainer`` node would train on GPUs."""
    return torch.cuda.is_available() and trainer.accelerator != "cpu"


def check_precision(trainer: Any) -> None:
    """Refuses float16 where Lightning would silently take another precision.

    Raises:
        ConfigError: there is no GPU to use.
    """
    if str(trainer.precision).startswith("16") and not uses_gpu(trainer):
        raise ConfigError(
            f"trainer.precision={trainer.precision} needs a GPU: use bf16-mixed or 32-true on a CPU"
        )


def trainer_plugins(trainer: Any) -> list[Any]:
    """Returns the plugins that every training has.

    Args:
        trainer: the ``trainer`` node.

    Raises:
        ConfigError: the Slurm job was submitted in a way that Lightning cannot use.
    """
    plugins: list[Any] = [SafeCheckpointIO(), *process_plugins(trainer.strategy)]
    if trainer.get("sync_batchnorm"):
        plugins.append(TorchSyncBatchNorm() if uses_gpu(trainer) else GatherBatchNorm())
    # torchrun may itself have been started by Slurm, once a node.
    if SLURMEnvironment.detect() and not distributed.is_torchelastic_launched():
        # Lightning's own requeueing keeps checkpoints of another kind, in another place, saved in
        # the middle of a step. A signal here ends the step first (stopping.py), and Slurm requeues.
        try:
            plugins.append(SLURMEnvironment(auto_requeue=False))
        except RuntimeError as error:
            raise ConfigError(" ".join(str(error).split())) from error
    return plugins


def build_trainer(cfg: DictConfig, loggers: list[Any]) -> pl.Trainer:
    """Builds the trainer with its callbacks.

    Raises:
        ConfigError: it cannot be had here, such as more devices than there are.
    """
    check_flags(cfg)
    check_precision(cfg.trainer)
    node = with_overfitting(cfg.trainer)
    plugins = trainer_plugins(node)
    with open_dict(node):
        node.pop("sync_batchnorm", None)
    silent = node.get("enable_progress_bar") is False
    callbacks = instantiate_all({**cfg.callbacks, "progress": None} if silent else cfg.callbacks)
    try:
        trainer: pl.Trainer = instantiate(
            node, callbacks=[*callbacks, EndOnSignal()], logger=loggers, plugins=plugins
        )
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(f"no such trainer here: {reason}") from error
    return trainer
