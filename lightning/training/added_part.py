"""A part that is added to a finished detector: trained alone, kept in the detector's checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import nn

from deepacc_d2.files import whole_file
from deepacc_lightning.training.callbacks import ProgressBar
from deepacc_lightning.training.schedule import adamw_with_cosine, planned_steps


class AddedPart(pl.LightningModule):
    """Trains a part by AdamW with a cosine schedule.

    Args:
        part: what is trained.
        lr: of AdamW, after the warm-up; it falls to zero by a cosine.
        weight_decay: of AdamW, on matrices and kernels alone.
        warmup_steps: over which the rate rises; a fifth of a very short training at most.

    Attributes:
        figures: of the last validation.
        history: the figures of each validation.
    """

    def __init__(
        self, part: nn.Module, *, lr: float, weight_decay: float, warmup_steps: int
    ) -> None:
        super().__init__()
        self.part = part
        self.lr, self.weight_decay, self.warmup_steps = lr, weight_decay, warmup_steps
        self.figures: dict[str, float] = {}
        self.history: list[dict[str, float]] = []

    def on_train_epoch_start(self) -> None:
        """Tells the training data which epoch it is: each has its own random changes."""
        self.trainer.datamodule.train_data.epoch = self.current_epoch  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        """Makes AdamW and its schedule, a step at a time."""
        return adamw_with_cosine(
            self.part,
            lr=self.lr,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            total_steps=planned_steps(self.trainer),
        )

    def keep(self, figures: dict[str, float], shown: str) -> None:
        """Keeps the figures of a validation, and shows one of them in the progress bar."""
        self.figures = figures
        self.history.append(dict(figures))
        self.log(shown, figures[shown], prog_bar=True)


def part_trainer(cfg: DictConfig, out: Path, *, clip: float) -> pl.Trainer:
    """Makes the trainer of a part.

    Args:
        cfg: with ``accelerator``, ``epochs`` and ``precision``.
        out: the run's directory.
        clip: largest norm of the gradient.
    """
    return pl.Trainer(
        accelerator=cfg.accelerator,
        devices=1,
        max_epochs=max(int(cfg.epochs), 1),
        precision=cfg.precision,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[ProgressBar(refresh_rate=5)],
        default_root_dir=out,
    )


def without_part(content: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Returns a checkpoint's content without a part that it may have.

    Args:
        content: as :func:`deepacc_d2.checkpoint.read_checkpoint` returns it.
        place: of the part in the model, such as ``roi_heads.box_predictor.context``.
    """
    config = copy.deepcopy(content["deepacc_config"])
    *above, name = place.split(".")
    node = config["model"]
    for each in above:
        node = node.get(each) or {}
    node.pop(name, None)
    weights = {k: v for k, v in content["model"].items() if not k.startswith(f"{place}.")}
    return {**content, "deepacc_config": config, "model": weights}


def write_with_part(
    path: Path,
    content: Mapping[str, Any],
    part: nn.Module,
    *,
    place: str,
    node: Mapping[str, Any],
    kept: tuple[str, ...],
) -> None:
    """Writes a detector's checkpoint with a part added.

    Args:
        path: the new checkpoint.
        content: of the detector's checkpoint, without such a part.
        part: the part.
        place: of it in the model.
        node: its config.
        kept: what is taken over besides weights and config.
    """
    config = copy.deepcopy(content["deepacc_config"])
    *above, name = place.split(".")
    parent = config["model"]
    for each in above:
        parent = parent[each]
    parent[name] = dict(node)
    weights = {f"{place}.{k}": v.detach().cpu() for k, v in part.state_dict().items()}
    others = {k: v for k, v in content.items() if k in kept}
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as temporary:
        torch.save(
            {**others, "model": {**content["model"], **weights}, "deepacc_config": config},
            temporary,
        )
