"""A job of a sweep or an ablation: one training in a folder of its own, done once.

Processes share the work through files alone: a job's results say that it is done, ``failed.txt``
says why it failed, and the lock of its folder says that a process has it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.types import SUMMARY_KEYS
from deepacc_d2.files import write_text
from deepacc_d2.sole_use import OccupiedError, is_in_use, sole_use
from deepacc_lightning.core.cli import check_overrides
from deepacc_lightning.core.config import recorded
from deepacc_lightning.training.callbacks import format_duration
from deepacc_lightning.training.run_settings import first_difference, settings_of

RESULTS = {
    "sweep": ("job.json",),
    "ablation": tuple(
        f"test/{name}.json" for name in ("metrics", "predictions", "predictions_top1")
    ),
}
"""Files of a job that is done, by the name of its config."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        preset: name of the experiment.
        seed: its seed.
        out: its run directory.
        overrides: of the config that ``config_name`` names.
        values: the swept keys and the job's values of them, as texts of Hydra's override grammar.
        config_name: ``sweep`` or ``ablation``.
    """

    preset: str
    seed: int
    out: Path
    overrides: tuple[str, ...]
    values: tuple[tuple[str, str], ...] = ()
    config_name: str = "sweep"

    def compose(self) -> DictConfig:
        """Returns the job's own config.

        Raises:
            ConfigError: an override does not fit this preset.
        """
        return check_overrides(self.config_name, list(self.overrides))

    @property
    def done(self) -> bool:
        """Whether it was finished, by any process."""
        return all((self.out / name).is_file() for name in RESULTS[self.config_name])

    @property
    def claimed(self) -> bool:
        """Whether some process has it at the moment."""
        return is_in_use(self.out) and not self.done

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Tries to take the job for this process; yields whether it is this one's to do.

        A process that dies loses its claim.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(sole_use(self.out))
            except OccupiedError:
                yield False
            else:
                yield not self.done

    @property
    def failure(self) -> Path:
        """Where it is written down why the job failed, if it did."""
        return self.out / "failed.txt"

    def note_failure(self, reason: str) -> None:
        """Writes down why it failed."""
        write_text(self.failure, reason + "\n")
        stamp(self.failure)

    def failed_since(self, began: float) -> bool:
        """Whether it failed after a time in seconds since the epoch: before, it is tried again."""
        return changed_since(self.failure, began)

    def started_since(self, began: float) -> bool:
        """Whether any process has begun or continued it after a time."""
        return changed_since(self.out / "log.txt", began)

    def reason(self) -> str:
        """Returns why it failed, on one line; empty if it did not."""
        try:
            return " ".join(self.failure.read_text(encoding="utf-8").split())
        except OSError:
            return ""

    def result(self) -> dict[str, Any]:
        """Returns what ``job.json`` of a done job of a sweep says."""
        content: dict[str, Any] = json.loads((self.out / "job.json").read_text(encoding="utf-8"))
        return content

    def outcome(self) -> str:
        """Describes for people what a done job gave: a sweep's by validation, else by the test."""
        if self.config_name == "sweep":
            found = self.result()
            return f"map50 {found['objective']:6.2f}  {format_duration(found['seconds'])}"
        metrics = read_metrics(self)
        return "  ".join(f"{key} {metrics[key]:6.2f}" for key in ("map50", "acc", "aer"))

    def check_same(self, composed: DictConfig) -> None:
        """Checks that what was finished or begun here had the settings that are asked for.

        Args:
            composed: the job's config.

        Raises:
            ConfigError: names the first setting that differs.
            DataError: the settings cannot be read.
        """
        path = self.out / "config.yaml"
        if not path.is_file():
            return
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
            begun_with = settings_of(found)
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged: remove {self.out}") from error
        wanted = settings_of(recorded(composed))
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
            trunk: fingerprint of the frozen trunk; null where the whole network is trained.

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


def read_facts(job: Job) -> dict[str, Any]:
    """Returns what ``run.json`` of a job says; nothing where it was not begun."""
    path = job.out / "run.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return facts


def read_metrics(job: Job) -> dict[str, float]:
    """Returns the test metrics of a finished job, in percent; NaN where undefined."""
    content = json.loads((job.out / "test" / "metrics.json").read_text(encoding="utf-8"))
    return {k: math.nan if content[k] is None else float(content[k]) for k in SUMMARY_KEYS}


def changed_since(path: Path, began: float) -> bool:
    """Whether a file exists and was written after a time in seconds since the epoch."""
    try:
        return path.stat().st_mtime >= began
    except OSError:
        return False


def stamp(path: Path) -> None:
    """Sets a file's time to this machine's: that of a file server may be another one."""
    now = time.time()
    os.utime(path, (now, now))
