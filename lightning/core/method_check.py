"""Checks of the method's keys, made when a config is composed, before anything is built."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from deepacc_d2.chromosomes import DENVER_GROUPS, NUM_CLASSES, adjacency_matrix
from deepacc_d2.errors import ConfigError
from deepacc_d2.method import SETTINGS, check_branches, check_setting

PREDICTOR = "model.roi_heads.box_predictor"
NODES = {
    **{f"{PREDICTOR}.{name}": name for name in ("alpha", "beta", "gamma")},
    f"{PREDICTOR}.margin_branch.m": "m",
    f"{PREDICTOR}.margin_branch.s": "s",
    f"{PREDICTOR}.inference_branch.delta": "delta",
    f"{PREDICTOR}.inference_branch.center": "center",
    f"{PREDICTOR}.inference_branch.center_share": "center_share",
    f"{PREDICTOR}.gia.anchor": "anchor",
}


def check_method(cfg: DictConfig) -> None:
    """Refuses a training config whose method contradicts itself.

    Raises:
        ConfigError: names the keys: GIA or the inference branch without a margin branch, groups
            that do not cover the classes, a number outside its range, an unknown kind of center.
    """
    for name in SETTINGS:
        if name in cfg:
            check_setting(name, cfg[name])
    predictor = OmegaConf.select(cfg, PREDICTOR)
    if predictor is None or "margin_branch" not in predictor:
        return
    on = [predictor.get(name) is not None for name in ("margin_branch", "inference_branch", "gia")]
    try:
        check_branches(*on)
    except ConfigError as error:
        raise ConfigError(f"{PREDICTOR}: {error}") from error
    for key, name in NODES.items():
        value = OmegaConf.select(cfg, key)
        if value is not None:
            check_setting(name, value, key=key)
    if predictor.get("gia") is not None:
        _check_gia(predictor.gia)
    for key in ("model.roi_heads.num_classes", f"{PREDICTOR}.num_classes"):
        if OmegaConf.select(cfg, key) != NUM_CLASSES:
            raise ConfigError(
                f"{key}={OmegaConf.select(cfg, key)}: the Denver groups cover {NUM_CLASSES} classes"
            )


def _check_gia(gia: DictConfig) -> None:
    groups = OmegaConf.to_container(gia.groups) if gia.get("groups") is not None else DENVER_GROUPS
    try:
        named = {str(g): [str(n) for n in names] for g, names in dict(groups).items()}  # type: ignore[arg-type]
        adjacency_matrix(named)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{PREDICTOR}.gia.groups: expected lists of class names") from error
    except ConfigError as error:
        raise ConfigError(f"{PREDICTOR}.gia.groups: {error}") from error
