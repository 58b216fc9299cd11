"""A trained checkpoint made small enough to pass on: ``deepacc release --help``.

Optimizer, schedule and paths go; weights become bfloat16; the settings that were chosen on
validation images and a card that says what it is come in. What comes out loads wherever a
training's checkpoint does.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.command.flags import build_parser
from deepacc_d2.errors import ConfigError, DataError, UserError
from deepacc_d2.files import read_json, whole_file
from deepacc_d2.method import check_settings

CONFIG_KEYS = (
    *("preset", "seed", "alpha", "beta", "gamma", "m", "s", "delta", "center", "center_share"),
    *("pixel_mean", "pixel_std", "model", "scale", "optim"),
)
"""What of a run's config is the model's; the rest says where it lay and what it logged."""

CARD_KEYS = ("name", "version", "licence", "data", "commands", "metrics", "limits")
"""What a card must tell."""


def release(
    content: Mapping[str, Any],
    card: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    delta: float | None = None,
) -> dict[str, Any]:
    """Returns the content of the checkpoint to pass on.

    Args:
        content: of a training's checkpoint.
        card: see :data:`CARD_KEYS`; plain containers, numbers and texts.
        calibration: ``karyotype`` and ``selection`` settings, of ``make karyotype``.
        delta: least score of a local class center from now on; None leaves that of training. No
            weight depends on it, so that it can be chosen on validation images afterwards.

    Raises:
        ConfigError: the card lacks something, or there is no inference branch to set delta of.
    """
    missing = [key for key in CARD_KEYS if not card.get(key)]
    if missing:
        raise ConfigError(f"the card does not tell {', '.join(missing)}: write all of its keys")
    config = content["deepacc_config"]
    if delta is not None:
        config = with_delta(config, delta)
    chosen = calibration or {}
    return {
        "model": {name: small(value) for name, value in content["model"].items()},
        "deepacc_config": {
            **{key: config[key] for key in CONFIG_KEYS if key in config},
            # An evaluation computes as the training did, unless it is told otherwise.
            "trainer": {"precision": config["trainer"]["precision"]},
        },
        "card": dict(card),
        "karyotype": dict(chosen.get("karyotype") or content.get("karyotype") or {}),
        "selection": dict(chosen.get("selection") or content.get("selection") or {}),
    }


def with_delta(config: Mapping[str, Any], delta: float) -> dict[str, Any]:
    """Returns a config whose inference branch has another delta.

    Raises:
        ConfigError: it has no inference branch, or delta is outside [0, 1].
    """
    check_settings(delta=delta)
    changed = copy.deepcopy(dict(config))
    heads = changed["model"].get("roi_heads") or {}
    branch = (heads.get("box_predictor") or {}).get("inference_branch")
    if branch is None:
        raise ConfigError(f"delta={delta}: a model without inference branch has no local centers")
    branch["delta"] = changed["delta"] = delta
    return changed


def small(value: Tensor) -> Tensor:
    """Returns matrices and kernels in bfloat16, all else as it is.

    Vectors are a thousandth of the weights, and among them are the running statistics of batch
    norm, which three digits would blur.
    """
    return value.to(torch.bfloat16) if value.is_floating_point() and value.ndim > 1 else value


def read_card(path: Path) -> dict[str, Any]:
    """Reads a card, YAML.

    Raises:
        DataError: it is not there, or no mapping.
    """
    try:
        card = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"card {path} cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise DataError(f"card {path} is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(card, dict):
        raise DataError(f"card {path} is no mapping: write key: value lines")
    return card


def main(arguments: list[str] | None = None) -> None:
    """Command line; exits 2 with one line on bad input."""
    options = build_parser("release").parse_args(arguments)
    try:
        calibration = read_json(options.calibration) if options.calibration else None
        content = release(
            read_checkpoint(options.ckpt), read_card(options.card), calibration, options.delta
        )
        write(options.out, content)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Saves a checkpoint by way of a temporary file.

    Raises:
        ConfigError: the place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            torch.save(dict(content), temporary)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another") from error


if __name__ == "__main__":
    main()
