"""Hydra on top of Detectron2: resolvers for derived numbers, and building what nodes describe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from detectron2.layers import ShapeSpec
from omegaconf import DictConfig, ListConfig, OmegaConf

from deepacc_d2.errors import ConfigError

TRUSTED_TARGETS = ("deepacc_d2.", "detectron2.layers.", "detectron2.modeling.")
"""What a model node read from a checkpoint may build: a checkpoint can come from a stranger, and
``_target_`` calls anything importable."""


def config_dir() -> str:
    """Returns the directory of ``conf``: beside the sources, or inside an installed wheel."""
    source = Path(__file__).resolve().parent.parent / "conf"
    if (source / "train.yaml").is_file():
        return str(source)
    from importlib.resources import files

    return str(files("deepacc_conf"))


def _strides(features: list[str]) -> list[int]:
    return [2 ** int(name[1:]) for name in features]


def _anchors_per_cell(generator: Any) -> int:
    sizes, ratios = generator["sizes"], generator["aspect_ratios"]
    return len(sizes[0]) * len(ratios)


def _shape_specs(features: list[str], channels: int) -> list[dict[str, Any]]:
    target = f"{ShapeSpec.__module__}.{ShapeSpec.__name__}"
    return [{"_target_": target, "channels": channels, "stride": s} for s in _strides(features)]


def register_resolvers() -> None:
    """Registers the interpolations that the files under ``conf`` use. May be called again."""
    resolvers = {
        "repeat": lambda value, count: [value] * count,
        "divide": lambda a, b: a / b,
        "last": lambda values: values[-1],
        "strides": lambda features: _strides(list(features)),
        "inverse_strides": lambda features: [1.0 / s for s in _strides(list(features))],
        "anchors_per_cell": _anchors_per_cell,
        "shape_specs": lambda features, channels: _shape_specs(list(features), channels),
        "basename": lambda path: Path(path).resolve().name,
        "dirname": lambda path: str(Path(path).parent),
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)
    import datetime

    # Hydra's own ${now:} exists only under its decorator; tests and notebooks compose without.
    if not OmegaConf.has_resolver("now"):
        OmegaConf.register_new_resolver(
            "now", lambda pattern: datetime.datetime.now().strftime(pattern), use_cache=True
        )


def instantiate_all(nodes: DictConfig | None) -> list[Any]:
    """Builds each non-null node of a group such as ``callbacks`` or ``logger``."""
    return [hydra.utils.instantiate(node) for node in (nodes or {}).values() if node is not None]


def to_plain(cfg: DictConfig | ListConfig) -> Any:
    """Resolves a config into plain dicts, lists and numbers, fit for a checkpoint."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def targets(node: Any) -> Iterator[str]:
    """Yields every ``_target_`` in nested plain containers."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def check_trusted(node: Any, *, extra: tuple[str, ...] = ()) -> None:
    """Refuses a plain config that would call anything but model or augmentation classes.

    Raises:
        ConfigError: names the first target outside the trusted packages.
    """
    for target in targets(node):
        if not target.startswith(TRUSTED_TARGETS + extra):
            raise ConfigError(
                f"the checkpoint's config wants to call {target!r}: not a model part, refused"
            )
