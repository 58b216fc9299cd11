"""Checks of a sweep's command line: everything that can be known before the first job starts."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning.core.cli import check_accelerator, check_data_root, check_overrides
from deepacc_lightning.core.config import config_dir, to_plain
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.train import build_datamodule
from deepacc_lightning.training.run_settings import first_difference, settings_of

SWEEPERS = ("grid", "optuna")
LAUNCHERS = ("basic", "joblib", "submitit", "ray", "processes")
VARIABLES = {"sweeper": "SWEEPER", "launcher": "LAUNCHER", "trials": "N", "jobs": "JOBS"}
WEIGHT_OF = {"alpha": "margin_branch", "beta": "inference_branch", "gamma": "gia"}
"""Weights of losses, and the parts of the predictor that the losses are of."""
SEVERAL_KINDS = ("trainer.devices", "sweep.")
"""Beginnings of keys that take a number or something else, or have a check of their own."""

KINDS: dict[type, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    ListConfig: (ListConfig, "a list"),
    DictConfig: (DictConfig, "keys"),
}
"""Types that a value may have, by that of its default, and what they are called."""


@dataclass(frozen=True)
class Training:
    """What a job's config says, without where it is and what it logs.

    Attributes:
        job: the job.
        settings: a text that is the same for the same training.
        data: a text that is the same for the same data set.
        cfg: the composed config.
    """

    job: Job
    settings: str
    data: str
    cfg: DictConfig


class Defaults:
    """Configs without a value changed: what keys there are, and of which kind.

    Args:
        config_name: ``sweep`` or ``ablation``.
    """

    def __init__(self, config_name: str = "sweep") -> None:
        self.config_name = config_name

    def config(self, choices: tuple[str, ...]) -> DictConfig:
        """Returns the config of some choices of files; nobody changes it.

        Raises:
            ConfigError: an unknown choice.
        """
        try:
            return _composed(self.config_name, choices)
        except ConfigError as error:
            raise ConfigError(str(error).replace("unknown sweep ", "unknown SPACE ")) from error

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Composes a job's config, or the sweep's own.

        Raises:
            ConfigError: an unknown choice or key, with close ones; a value of another kind than the
                key's; one that the method does not allow.
        """
        parsed = [(text, OverridesParser.create().parse_override(text)) for text in overrides]
        choices = tuple(text for text, override in parsed if is_choice(override))
        defaults = self.config(choices)
        changed = [o for text, o in parsed if text not in choices and o.type is not None]
        changed = [o for o in changed if not (o.is_add() or o.is_force_add() or o.is_delete())]
        known = list(keys_of(OmegaConf.to_container(defaults)))
        for override in changed:
            if override.key_or_group not in known:
                raise ConfigError(unknown_key(override.key_or_group, known))
        cfg = check_overrides(self.config_name, list(overrides))
        for override in changed:
            key = override.key_or_group
            check_kind(key, select(defaults, key), select(cfg, key))
        return cfg


# Hydra reads all files anew each time, which takes most of the time of a plan.
@cache
def _composed(config_name: str, choices: tuple[str, ...]) -> DictConfig:
    return check_overrides(config_name, list(choices))


def is_choice(override: Override) -> bool:
    """Whether an override chooses a file of a group, and changes no value."""
    groups = {path.name for path in Path(config_dir()).iterdir() if path.is_dir()}
    key = override.key_or_group
    return override.package is not None or "/" in key or key in groups


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """Yields the key of every node of a plain config."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from keys_of(value, f"{prefix}{name}.")


def select(cfg: DictConfig, key: str) -> Any:
    """Returns a value, or null where it is not known yet."""
    try:
        return OmegaConf.select(cfg, key)
    except OmegaConfBaseException:
        return None


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Says that there is no such key, and which ones may be meant."""
    last = key.rpartition(".")[2]
    near = [name for name in known if name.rpartition(".")[2] == last]
    meant = (near or difflib.get_close_matches(key, known))[:3]
    if meant:
        return f"unknown key {key}: did you mean {' or '.join(meant)}?"
    return f"unknown key {key}: the keys are those of conf/train.yaml and of the files it names"


def check_kind(key: str, default: Any, value: Any) -> None:
    """Checks that a value is of the kind that the key has by default.

    Raises:
        ConfigError: a text for a number, a fraction for a count, a number for a switch.
    """
    if default is None or value is None or key.startswith(SEVERAL_KINDS):
        return
    types, kind = KINDS.get(type(default), (object, ""))
    switch = isinstance(value, bool) and kind and not isinstance(default, bool)
    if switch or not isinstance(value, types):
        raise ConfigError(f"{key}={value}: expected {kind}, such as {default}")


def check_settings(cfg: DictConfig) -> None:
    """Checks the sweep's own settings.

    Raises:
        ConfigError: an unknown sweeper or launcher, a count that is none.
    """
    settings = cfg.sweep
    for key, known in (("sweeper", SWEEPERS), ("launcher", LAUNCHERS)):
        if settings[key] not in known:
            raise ConfigError(f"{VARIABLES[key]}={settings[key]}: choose {', '.join(known)}")
    for key in ("trials", "jobs"):
        count = settings[key]
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"{VARIABLES[key]}={count}: expected a whole number above zero")
    if settings.jobs > 1 and settings.launcher == "basic":
        raise ConfigError(
            f"JOBS={settings.jobs}: LAUNCHER=basic runs one job at a time; several need "
            "LAUNCHER=joblib, submitit, ray or processes"
        )


def check_one_device(cfg: DictConfig) -> None:
    """Checks that a job trains on one device: with several, each rank would start all jobs anew.

    Raises:
        ConfigError: it asks for more.
    """
    trainer = cfg.trainer
    devices, strategy = trainer.get("devices", 1), trainer.get("strategy", "auto")
    one = len(devices) == 1 if OmegaConf.is_list(devices) else str(devices) in ("1", "[0]")
    # A strategy can be a node with a class of its own.
    if not one or trainer.get("num_nodes", 1) != 1 or "ddp" in str(strategy).lower():
        raise ConfigError(
            f"trainer.devices={devices} with trainer.strategy={strategy}: a job trains on one "
            "device; leave trainer= and trainer.devices out, and use JOBS to spread the jobs"
        )


def check_folder(folder: Path, manifest: dict[str, Any]) -> None:
    """Checks that a sweep's folder is new, or holds this sweep.

    Raises:
        ConfigError: it holds another one, or something else.
        DataError: what says which sweep it holds is damaged.
    """
    path = folder / "sweep.json"
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} holds something other than a sweep: choose another OUT")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key in manifest if found[key] != manifest[key]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: remove {folder}, or choose another OUT") from error
    if different:
        key = different[0]
        raise ConfigError(
            f"{folder} holds another sweep ({first_difference(found[key], manifest[key], key)}): "
            "choose another OUT"
        )


def check_jobs(defaults: Defaults, jobs: Sequence[Job]) -> tuple[Training, ...]:
    """Composes and checks jobs, and what is in their folders already.

    Raises:
        ConfigError: names the first thing that is wrong.
    """
    found = []
    for job in jobs:
        cfg = defaults.compose(job.overrides)
        check_one_device(cfg)
        check_data_root(cfg, several=True)
        check_accelerator(cfg.trainer.accelerator)
        epochs, every = cfg.trainer.max_epochs, cfg.trainer.check_val_every_n_epoch
        if cfg.trainer.max_steps == -1 and 0 < epochs < every:
            raise ConfigError(
                f"trainer.max_epochs={epochs} ends before the first validation "
                f"(trainer.check_val_every_n_epoch={every}), and the best is chosen by that"
            )
        plain = to_plain(cfg)
        job.check_same(cfg)
        settings = json.dumps(read_settings(plain), sort_keys=True, default=str)
        data = json.dumps(plain["data"], sort_keys=True, default=str)
        found.append(Training(job, settings, data, cfg))
    return tuple(found)


def read_settings(plain: dict[str, Any]) -> dict[str, Any]:
    """Returns what decides a training's result, without the weights of losses that it lacks."""
    settings = settings_of(plain)
    predictor = ((settings["model"] or {}).get("roi_heads") or {}).get("box_predictor") or {}
    absent = [weight for weight, part in WEIGHT_OF.items() if predictor.get(part) is None]
    if not predictor or not absent:
        return settings
    shown = {key: value for key, value in predictor.items() if key not in absent}
    heads = {**settings["model"]["roi_heads"], "box_predictor": shown}
    return {**settings, "model": {**settings["model"], "roi_heads": heads}}


def unread_keys(found: Sequence[Training], keys: Sequence[str]) -> list[str]:
    """Returns the swept keys that change nothing in any of the trainings."""
    unread = []
    for key in keys:
        kinds: dict[str, set[tuple[str, str]]] = {}
        for training in found:
            others = json.dumps([pair for pair in training.job.values if pair[0] != key])
            kinds.setdefault(others, set()).add((training.settings, training.data))
        if all(len(kind) == 1 for kind in kinds.values()) and len(kinds) < len(found):
            unread.append(key)
    return unread


def refuse_unread(keys: Sequence[str]) -> None:
    """Refuses keys that change nothing.

    Raises:
        ConfigError: there are any.
    """
    if keys:
        raise ConfigError(
            f"{', '.join(keys)} changes nothing in this training, all jobs would be the same: "
            "leave it out, or choose an EXP that reads it"
        )


def notes_on(found: Sequence[Training], keys: Sequence[str]) -> tuple[str, ...]:
    """Returns what the user should know of a grid's jobs.

    Raises:
        ConfigError: a key changes nothing in any of them.
    """
    refuse_unread(unread_keys(found, keys))
    repeated = len(found) - len({(training.settings, training.data) for training in found})
    if not repeated:
        return ()
    return (f"{repeated} of {len(found)} jobs train the same as another one of them",)


def check_origins(found: Sequence[Training], trunk: str | None = None) -> set[str]:
    """Draws or reads the data sets of jobs, and checks that what was begun was of them.

    Done once and by the command: jobs of several processes would all draw a missing one.

    Args:
        found: what the jobs train.
        trunk: fingerprint of the frozen trunk; null where the whole network is trained.

    Returns:
        Fingerprints of the data sets.

    Raises:
        UserError: what is there is no data set, or a job was begun on another one.
    """
    fingerprints: dict[str, str] = {}
    for training in found:
        data = training.data
        if data not in fingerprints:
            fingerprints[data] = build_datamodule(training.cfg).info().fingerprint
        training.job.check_origin(fingerprints[data], trunk)
    return set(fingerprints.values())
