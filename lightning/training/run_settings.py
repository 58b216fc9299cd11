"""Which part of a run's config makes its result, and where two runs differ in it."""

from __future__ import annotations

from typing import Any

from deepacc_d2.checkpoint import with_later_keys
from deepacc_lightning.training.trainer_flags import FLAGS

SETTINGS = (
    "preset",
    "seed",
    "scale",
    "optim",
    "model",
    "init_weights",
    "init_trunk",
    "trainer",
)
"""Keys of a run's config that make its result; the rest says where it is and what it logs."""
HARDWARE = (
    "_target_",
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "sync_batchnorm",
    "default_root_dir",
    "enable_progress_bar",
)
"""Keys of ``trainer`` that do not."""


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """Returns what of a plain config decides a run's result."""
    config = with_later_keys(config)
    settings = {key: config.get(key) for key in SETTINGS}
    # A run of earlier has only the flags that it set.
    trainer = {k: v for k, v in {**FLAGS, **config["trainer"]}.items() if k not in HARDWARE}
    settings["trainer"] = trainer
    settings["max_train_images"] = (config.get("data") or {}).get("max_train_images")
    settings["ema"] = (config.get("callbacks") or {}).get("ema")
    # A run of `make train` in its place is as good as one of `make ablation PROTOCOL=end_to_end`.
    settings["protocol"] = config.get("ablation", {}).get("protocol", "end_to_end")
    if settings["protocol"] == "heads":
        settings["heads"] = config.get("heads")
    return settings


def first_difference(found: Any, wanted: Any, key: str) -> str:
    """Describes where two plain configs first differ; empty if nowhere.

    Gray statistics are filled in only when a run begins, and are the data's.
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in [*wanted, *(n for n in found if n not in wanted)]:
            if name in ("pixel_mean", "pixel_std"):
                continue
            inner = first_difference(found.get(name), wanted.get(name), f"{key}.{name}")
            if inner:
                return inner
        return ""
    return "" if found == wanted else f"{key}: {found} there, {wanted} now"
