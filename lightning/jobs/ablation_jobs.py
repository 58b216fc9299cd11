"""The jobs of an ablation: one training each, done once, by whichever process takes it first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.types import SUMMARY_KEYS
from deepacc_d2.modeling import ChromosomeRCNN
from deepacc_lightning import train
from deepacc_lightning.core.cli import check_overrides
from deepacc_lightning.core.config import compose_config, to_plain
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.training.heads_protocol import (
    HeadsDataModule,
    build_caches,
    build_heads_module,
    heads_of,
)
from deepacc_lightning.training.initial_weights import load_trunk
from deepacc_lightning.training.resume import last_checkpoint
from deepacc_lightning.training.run_settings import first_difference, settings_of

REPORT = ("metrics.json", "predictions.json", "predictions_top1.json")
"""What a finished run has under ``test``."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        preset: name of the experiment.
        seed: its seed.
        out: its run directory.
        overrides: of the config that ``config_name`` names.
    """

    config_name: ClassVar[str] = "ablation"

    preset: str
    seed: int
    out: Path
    overrides: tuple[str, ...]

    def compose(self) -> DictConfig:
        """Returns the job's own config.

        Raises:
            ConfigError: an override does not fit this preset.
        """
        check_overrides(self.config_name, list(self.overrides))
        return compose_config(self.config_name, self.overrides)

    @property
    def done(self) -> bool:
        """Whether it was finished, by any process."""
        return all((self.out / "test" / name).is_file() for name in REPORT)

    @property
    def claimed(self) -> bool:
        """Whether some process has it at the moment."""
        with self.claim() as mine:
            return not mine and not self.done

    @property
    def failure(self) -> Path:
        """Where it is written down why the job failed, if it did."""
        return self.out.parent / f".{self.out.name}.failed"

    def check_same(self, composed: DictConfig | None = None) -> None:
        """Checks that what was finished or begun here had the settings that are asked for.

        Args:
            composed: the job's config, where it is at hand already.

        Raises:
            ConfigError: names the first setting that differs.
        """
        path = self.out / "config.yaml"
        if not path.is_file():
            return
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
            begun_with = settings_of(found)
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged: remove {self.out}") from error
        wanted = settings_of(to_plain(composed or self.compose()))
        for key, value in wanted.items():
            difference = first_difference(begun_with.get(key), value, key)
            if difference:
                raise ConfigError(
                    f"{self.out} holds a run with other settings ({difference}): choose another "
                    "OUT, or remove it"
                )

    def check_origin(self, data: str, trunk: str | None) -> None:
        """Checks that what was begun here was of the same data set and trunk.

        Args:
            data: fingerprint of the data set.
            trunk: fingerprint of the frozen trunk; null for ``end_to_end``.

        Raises:
            ConfigError: it was not.
        """
        facts = read_facts(self)
        found = {
            "data set": (facts.get("data") or {}).get("fingerprint"),
            "trunk": facts.get("trunk"),
        }
        for what, wanted in (("data set", data), ("trunk", trunk)):
            if wanted and found[what] and found[what] != wanted:
                raise ConfigError(
                    f"{self.out} holds a run on another {what}: choose another OUT, or remove it"
                )

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Tries to take the job for this process; yields whether it is this one's to do.

        A process that dies loses its claim.
        """
        self.out.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.out.parent / f".{self.out.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield not self.done
        finally:
            lock.release()


def go_on_from_last(cfg: DictConfig) -> None:
    """Points a config at the newest intact checkpoint of its own run directory, if there is one."""
    cfg.ckpt_path = last_checkpoint(Path(cfg.out)) or cfg.ckpt_path


def run_end_to_end(cfg: DictConfig) -> dict[str, float]:
    """Trains a preset whole, or goes on where its training was stopped."""
    go_on_from_last(cfg)
    return train.run(cfg)


def run_heads(cfg: DictConfig, trunk: Path, caches: Path) -> dict[str, float]:
    """Trains a preset's heads on a trunk's cached output.

    Args:
        cfg: the job's config.
        trunk: checkpoint that the backbone, FPN and RPN come from.
        caches: folder of the caches; what is missing there is made.

    Returns:
        The summary metrics of the test split.
    """
    train.quiet()
    out = make_run_dir(cfg.out)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    model, datamodule = prepare_heads(cfg, trunk, caches)
    go_on_from_last(cfg)
    if cfg.ckpt_path:
        train.check_resumable(cfg)
    # Presets have heads of different sizes, which took different amounts of random numbers.
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    module = build_heads_module(cfg, model, to_plain(cfg))
    return train.execute(cfg, module, datamodule, out)


def prepare_heads(
    cfg: DictConfig, trunk: Path, caches: Path
) -> tuple[ChromosomeRCNN, HeadsDataModule]:
    """Builds a detector on a trunk, and the data module of the trunk's cached output.

    Args:
        cfg: a job's config; the gray statistics of the data are filled in.
        trunk: checkpoint that the backbone, FPN and RPN come from.
        caches: folder of the caches; what is missing there is made, by one process at a time.
    """
    images = train.build_datamodule(cfg)
    train.fill_in_data(cfg, images.info())
    model = train.build_model(cfg)
    heads_of(model)
    assert isinstance(model, ChromosomeRCNN)
    load_trunk(model, trunk)
    caches.mkdir(parents=True, exist_ok=True)
    with FileLock(caches / ".lock"):
        built = build_caches(cfg, model, images, caches)
    datamodule = HeadsDataModule(
        built,
        root=images.data,
        test_augmentations=images.augmentations["test"],
        batch_size=cfg.heads.batch_size,
        test_batch_size=cfg.scale.test_batch_size,
        seed=cfg.seed,
        max_val_images=cfg.data.max_val_images,
    )
    return model, datamodule


def read_facts(job: Job) -> dict[str, Any]:
    """Returns what ``run.json`` of a finished job says."""
    path = job.out / "run.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return facts


def read_metrics(job: Job) -> dict[str, float]:
    """Returns the test metrics of a finished job, in percent; NaN where undefined."""
    content = json.loads((job.out / "test" / "metrics.json").read_text(encoding="utf-8"))
    return {k: math.nan if content[k] is None else float(content[k]) for k in SUMMARY_KEYS}
