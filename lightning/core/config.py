"""Hydra on top of Detectron2: resolvers for derived numbers, and building what nodes describe."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.secret import redacted
from deepacc_lightning.core.method_check import check_method
from deepacc_lightning.core.processes import run_time

ONE_PATH = (
    *("out", "sweep.dir", "resume", "ckpt", "images", "image", "cases", "crops"),
    *("ablation.trunk", "ablation.results", "ablation.cache", "init_trunk"),
)
"""Keys whose value is one path, never several."""
PATHS = ("ckpt_path", "init_weights", "data.root")
"""Keys whose values are paths, of which a sweep may name several."""


def config_dir() -> str:
    """Returns the directory of ``conf``: next to the sources, or inside an installed wheel."""
    source = Path(__file__).resolve().parents[2] / "conf"
    if (source / "train.yaml").is_file():
        return str(source)
    spec = importlib.util.find_spec("deepacc_conf")
    assert spec is not None, "the configs of deepacc-d2 are not installed"
    assert spec.submodule_search_locations is not None
    return str(Path(next(iter(spec.submodule_search_locations))).resolve())


def _strides(features: list[str]) -> list[int]:
    return [2 ** int(name[1:]) for name in features]


def _anchors_per_cell(generator: Any) -> int:
    sizes, ratios = generator["sizes"], generator["aspect_ratios"]
    return len(sizes[0]) * len(ratios)


def basename(path: Any) -> str:
    """Returns a path's last part; of several, those of the first three with ``+`` between."""
    if not isinstance(path, list | ListConfig):
        return Path(path).resolve().name
    names = [basename(one) for one in path]
    return "+".join(names if len(names) <= 3 else [*names[:3], f"{len(names) - 3}more"])


def auto_precision() -> str:
    """Returns ``bf16-mixed`` where the device computes in bf16 by itself, else ``32-true``.

    A CPU without such instructions emulates bf16 several times slower than float32.
    """
    if torch.cuda.is_available():
        return (
            "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        )
    able = any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
    return "bf16-mixed" if able else "32-true"


def register_resolvers() -> None:
    """Registers the interpolations that the files under ``conf`` use. May be called again."""
    resolvers: dict[str, Callable[..., Any]] = {
        "repeat": lambda value, count: [value] * count,
        "divide": lambda a, b: a / b,
        "last": lambda values: values[-1],
        "strides": lambda features: _strides(list(features)),
        "inverse_strides": lambda features: [1.0 / s for s in _strides(list(features))],
        "anchors_per_cell": _anchors_per_cell,
        "auto_precision": auto_precision,
        "basename": basename,
        "dirname": lambda path: str(Path(path).parent),
        "run_time": run_time,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)


def all_presets() -> list[str]:
    """Returns the names of all presets, those of ``conf/experiment``."""
    return sorted(path.stem for path in (Path(config_dir()) / "experiment").glob("*.yaml"))


def compose_config(config_name: str, overrides: Iterable[str] = ()) -> DictConfig:
    """Composes a config as the command line would, for tests and notebooks.

    Args:
        config_name: ``train`` or ``evaluate``.
        overrides: as on the command line, such as ``experiment=sep``.

    Raises:
        ConfigError: the method's keys contradict each other, see
            :func:`~deepacc_lightning.core.method_check.check_method`.
    """
    register_resolvers()
    overrides = normalized(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose(config_name, overrides=overrides)
    check_method(cfg)
    return cfg


def normalized(overrides: Iterable[str]) -> list[str]:
    """Returns overrides as Hydra takes them, of what people type and earlier versions took.

    A path may hold signs of Hydra's grammar, as ``epoch=3,map50=81.2.ckpt`` does: a value that is
    none to the grammar, or a list of values where a file of that very name is meant, is quoted. A
    ``+`` goes from flags of the trainer: it was needed before the config had them all.
    """
    return [_as_path(re.sub(r"^\+(?=trainer\.\w+=)", "", override)) for override in overrides]


def _as_path(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals or not value or value[0] in "\"'[{" or override.startswith("-"):
        return override
    try:
        swept = OverridesParser.create().parse_override(override).is_choice_sweep()
        meant = swept and (key.lstrip("+") in ONE_PATH or _is_there(value))
    except HydraException:
        own = key.lstrip("+")
        meant = own in (*ONE_PATH, *PATHS) or "/" in value or _is_there(value)
    if not meant:
        return override
    candidate = f"{key}={quoted(value)}"
    try:
        OverridesParser.create().parse_override(candidate)
    except HydraException:  # what is wrong is something else: let Hydra say it
        return override
    return candidate


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except OSError:  # too long for a name
        return False


def quoted(text: object) -> str:
    """Returns a text as one value of Hydra's override grammar, whatever signs it has."""
    # Backslashes are special only in front of a quote, the closing one included.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', str(text))
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def instantiate_all(nodes: Mapping[Any, Any] | None) -> list[Any]:
    """Builds each non-null node of a group such as ``callbacks`` or ``logger``.

    Raises:
        ConfigError: names the node that cannot be built.
    """
    built = []
    for name, node in (nodes or {}).items():
        if node is None:
            continue
        try:
            built.append(hydra.utils.instantiate(node))
        except InstantiationException as error:
            cause = error.__cause__
            if isinstance(cause, UserError):
                raise cause from None
            lines = str(error).strip().splitlines()
            raise ConfigError(f"{name!s} cannot be built: {' '.join(lines[:2])}") from error
    return built


def recorded(cfg: DictConfig | ListConfig) -> Any:
    """Resolves a config as it is written down, in a checkpoint too.

    Without secrets, and without the file by which the command of this moment stops its jobs: one
    that continues them has another.
    """
    found = redacted(to_plain(cfg))
    callbacks = found.get("callbacks") if isinstance(found, dict) else None
    if callbacks and callbacks.get("stop_on_signal"):
        callbacks["stop_on_signal"]["asked"] = None
    return found


def to_plain(cfg: DictConfig | ListConfig) -> Any:
    """Resolves a config into plain dicts, lists and numbers."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
