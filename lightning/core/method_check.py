"""Checks of the method's keys, made when a config is composed, before anything is built."""

from __future__ import annotations

import math
from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from deepacc_d2.chromosomes import DENVER_GROUPS, NUM_CLASSES, adjacency_matrix
from deepacc_d2.errors import ConfigError
from deepacc_d2.losses.aam import check_margin
from deepacc_d2.losses.gia import check_anchor
from deepacc_d2.modeling.deepacc_predictor import check_branches
from deepacc_d2.modeling.local_centers import check_center, check_center_share, check_delta

PREDICTOR = "model.roi_heads.box_predictor"
WEIGHTS = ("alpha", "beta", "gamma")


def check_weight(value: float) -> None:
    """Checks a loss weight.

    Raises:
        ConfigError: it is negative or not finite.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError("a loss weight must be a number that is not negative")


CHECKS: dict[str, Callable[[float], None]] = {
    **dict.fromkeys(WEIGHTS, check_weight),
    "m": lambda m: check_margin(1.0, m),
    "s": lambda s: check_margin(s, 0.0),
    "delta": check_delta,
    "center_share": check_center_share,
}
NODES = {
    **{f"{PREDICTOR}.{name}": name for name in WEIGHTS},
    f"{PREDICTOR}.margin_branch.m": "m",
    f"{PREDICTOR}.margin_branch.s": "s",
    f"{PREDICTOR}.inference_branch.delta": "delta",
    f"{PREDICTOR}.inference_branch.center_share": "center_share",
}


def check_method(cfg: DictConfig) -> None:
    """Refuses a training config whose method contradicts itself.

    Raises:
        ConfigError: names the keys: GIA or the inference branch without a margin branch, groups
            that do not cover the classes, a number outside its range, an unknown kind of center.
    """
    for key in CHECKS:
        if key in cfg:
            _check_number(cfg, key, key)
    if "center" in cfg:
        check_center(cfg.center)
    predictor = OmegaConf.select(cfg, PREDICTOR)
    if predictor is None or "margin_branch" not in predictor:
        return
    on = [predictor.get(name) is not None for name in ("margin_branch", "inference_branch", "gia")]
    try:
        check_branches(*on)
    except ConfigError as error:
        raise ConfigError(f"{PREDICTOR}: {error}") from error
    for key, name in NODES.items():
        if OmegaConf.select(cfg, key) is not None:
            _check_number(cfg, key, name)
    branch = predictor.get("inference_branch")
    if branch is not None:
        try:
            check_center(branch.get("center", "single"))
        except ConfigError as error:
            raise ConfigError(f"{PREDICTOR}.inference_branch.{error}") from error
    if predictor.get("gia") is not None:
        _check_gia(predictor.gia)
    for key in ("model.roi_heads.num_classes", f"{PREDICTOR}.num_classes"):
        if OmegaConf.select(cfg, key) != NUM_CLASSES:
            raise ConfigError(
                f"{key}={OmegaConf.select(cfg, key)}: the Denver groups cover {NUM_CLASSES} classes"
            )


def _check_number(cfg: DictConfig, key: str, name: str) -> None:
    value = OmegaConf.select(cfg, key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key}={value}: expected a number")
    try:
        CHECKS[name](float(value))
    except ConfigError as error:
        raise ConfigError(f"{key}={value}: {str(error).partition(': ')[2] or error}") from error


def _check_gia(gia: DictConfig) -> None:
    groups = OmegaConf.to_container(gia.groups) if gia.get("groups") is not None else DENVER_GROUPS
    try:
        named = {str(g): [str(n) for n in names] for g, names in dict(groups).items()}  # type: ignore[arg-type]
        adjacency_matrix(named)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{PREDICTOR}.gia.groups: expected lists of class names") from error
    except ConfigError as error:
        raise ConfigError(f"{PREDICTOR}.gia.groups: {error}") from error
    try:
        check_anchor(gia.get("anchor", "labelled"))
    except ConfigError as error:
        raise ConfigError(f"{PREDICTOR}.{error}") from error
