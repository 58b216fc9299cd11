"""Run directories as training leaves them, with made-up numbers, written in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from deepacc_d2.chromosomes import CLASSES, DENVER_GROUPS

MakeRun = Callable[..., Path]


def fake_config(**own: Any) -> dict[str, Any]:
    """A resolved config in the shape of conf/train.yaml, small; dotted keys set inner values."""
    config: dict[str, Any] = {
        "preset": "siamese_gia",
        "seed": 0,
        "alpha": 0.1,
        "m": 0.25,
        "out": "/somewhere",
        "test": True,
        "model": {"roi_heads": {"name": "x", "alpha": None, "fc": [16, 16]}},
        "optim": {"optimizer": {"_target_": "AdamW", "lr": 0.001}},
        "trainer": {"devices": 1, "max_epochs": 4, "precision": "32-true"},
        "data": {"name": "tiny", "root": "/data/tiny", "max_val_images": None},
        "scale": {"name": "quick", "max_epochs": 4, "image_size": 96},
        "logger": {"csv": {"save_dir": "/somewhere"}},
    }
    for dotted, value in own.items():
        *nodes, last = dotted.split(".")
        node = config
        for name in nodes:
            node = node.setdefault(name, {})
        node[last] = value
    # What interpolations would have resolved to.
    config["model"]["roi_heads"]["alpha"] = config["alpha"]
    config["model"]["roi_heads"]["name"] = f"head of {config['preset']}"
    config["trainer"]["max_epochs"] = config["scale"]["max_epochs"]
    return config


def fake_test(rng: np.random.Generator, level: float) -> dict[str, Any]:
    """The content of a metrics.json around a level in percent."""
    summary = {
        "map50": level,
        "map50_max": level - 5,
        "coco_ap": level / 2,
        "acc": level - 10,
        "aer": 110 - level,
        "precision": level,
        "recall": level - 2,
        "f1": level - 1,
        "wcr": level / 10,
    }
    per_class = {
        name: {"ap50": float(np.clip(level + rng.normal(0, 8), 0, 100)), "gt": 20}
        for name in CLASSES
    }
    per_class["Y"] = {"ap50": None, "gt": 0}
    per_group = {
        group: {
            "gt": 20 * len(names),
            **{
                kind: int(rng.integers(0, 9))
                for kind in (
                    "within_group_confusions",
                    "between_group_confusions",
                    "missed",
                    "spurious",
                )
            },
        }
        for group, names in DENVER_GROUPS.items()
    }
    settings = {"score_threshold": 0.5}
    return {
        **summary,
        "per_class": per_class,
        "per_group": per_group,
        "num_images": 24,
        "num_gt": 1104,
        "settings": settings,
    }


@pytest.fixture(scope="session")
def write() -> MakeRun:
    """The function :func:`write_run`, for fixtures that live longer than one test."""
    return write_run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a finished run: ``make_run("a/b", level=60, preset="sep", **{"optim...": ...})``."""
    return lambda name, **options: write_run(tmp_path / name, **options)


def write_run(
    path: Path,
    *,
    level: float = 60.0,
    epochs: int = 4,
    steps: int = 40,
    facts: dict[str, Any] | None = None,
    test: bool = True,
    **own: Any,
) -> Path:
    """Writes a run directory whose best validation map50 is ``level`` + 1."""
    config = fake_config(**own)
    rng = np.random.default_rng([int(level * 100), config["seed"]])
    (path / "csv").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    content = {
        "command": ["train"],
        "git": {"revision": "a" * 40, "dirty": False},
        "versions": {"torch": "2.14.1"},
        "preset": config["preset"],
        "scale": config["scale"]["name"],
        "seed": config["seed"],
        "data": {"name": "tiny", "root": "/data/tiny", "fingerprint": "f" * 64},
        "parameters": 583478,
        "device": "a CPU, 1 threads",
        "steps": steps,
        "epochs": epochs,
        "fit_seconds": 12.5,
        "train_seconds": 10.0 + level / 100,
        "train_images": steps * 4,
        **(facts or {}),
    }
    (path / "run.json").write_text(json.dumps(content))
    lines = ["epoch,step,train/loss,train/loss_cls,val/map50,val/aer"]
    for step in range(steps):
        epoch = step * epochs // steps
        loss = 3 * np.exp(-step / steps) + rng.normal(0, 0.1)
        lines.append(f"{epoch},{step},{loss:.4f},{0.6 * loss:.4f},,")
        if (step + 1) % (steps // epochs) == 0:
            # The last epoch is worse than the one before it: the best is not the last.
            value = level + 1 - 8 * abs(epoch - (epochs - 2))
            lines.append(f"{epoch},{step},,,{value:.4f},{111 - value:.4f}")
    (path / "csv" / "metrics.csv").write_text("\n".join(lines) + "\n")
    if test:
        (path / "test").mkdir()
        (path / "test" / "metrics.json").write_text(json.dumps(fake_test(rng, level)))
    return path
