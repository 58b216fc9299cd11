"""Our checkpoints against a plain ``torch.save`` and ``torch.load`` of the same content.

Ours are on the disk when the call returns (``fsync``), keep the one before, and are read with every
byte checked; a plain one is left to the system to write. What is saved is a training's: weights,
state of the optimizer, config. Both write in turn into ``runs``, where run directories are by
default, and each finds nothing of the other's waiting to be written; both read what the system
still has in memory.

Run as a script: ``python tests/benchmarks/bench_checkpoint.py``.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from measurement import Measurement

from deepacc_lightning.core.config import compose_config, to_plain
from deepacc_lightning.training.checkpoint_io import LAST, PREVIOUS, SafeCheckpointIO, read_intact

SCALES = {"quick": ("scale=quick",), "paper": ("scale=paper",)}
MEGABYTE = 1e6


def _checkpoint(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a training of the baseline would save, of random weights."""
    cfg = compose_config(
        "train",
        [
            *overrides,
            *("experiment=baseline", "init_weights=null", "data=coco", "data.root=."),
            *("pixel_mean=128", "pixel_std=64"),
        ],
    )
    model = instantiate(cfg.model)
    optimizer = instantiate(cfg.optim.optimizer)(p for p in model.parameters() if p.requires_grad)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights = model.state_dict()
    return {
        "state_dict": {f"model.{name}": value for name, value in weights.items()},
        "model": weights,
        "optimizer_states": [optimizer.state_dict()],
        "deepacc_config": to_plain(cfg),
    }


def _save_plain(checkpoint: dict[str, Any], path: Path) -> None:
    torch.save(checkpoint, path)


def _save_durable(checkpoint: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def _seconds(action: Callable[[], Any]) -> float:
    os.sync()
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _measure(name: str, checkpoint: dict[str, Any], folder: Path, turns: int) -> list[Measurement]:
    ours, plain, durable = folder / LAST, folder / "plain.ckpt", folder / "durable.ckpt"
    writer = SafeCheckpointIO()
    actions: dict[str, Callable[[], Any]] = {
        "save": lambda: writer.save_checkpoint(checkpoint, ours),
        "save_plain": lambda: _save_plain(checkpoint, plain),
        "save_with_fsync": lambda: _save_durable(checkpoint, durable),
        "read": lambda: read_intact(ours),
        "read_plain": lambda: torch.load(plain, map_location="cpu", weights_only=True),
    }
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {key: [] for key in actions}
    for _ in range(turns):
        for key, action in actions.items():
            seconds[key].append(_seconds(action))
    assert (folder / PREVIOUS).is_file(), "the checkpoint before was not kept"
    assert _equal(read_intact(ours)["state_dict"], checkpoint["state_dict"])
    megabytes = ours.stat().st_size / MEGABYTE
    taken = {key: np.array(values) for key, values in seconds.items()}
    median = {f"{key}_seconds": float(np.median(values)) for key, values in taken.items()}
    details = {**median, "megabytes": megabytes, "turns": turns}
    return [
        Measurement(
            name=f"checkpoint saved / torch.save, {name}",
            value=float(np.median(taken["save"] / taken["save_plain"])),
            goal="-",
            unit="x",
            how=f"{megabytes:.0f} MB in {median['save_seconds']:.2f} s, median of {turns} turns; "
            f"plain: {median['save_plain_seconds']:.2f} s, plain and onto the disk: "
            f"{median['save_with_fsync_seconds']:.2f} s",
            details=details,
        ),
        Measurement(
            name=f"checkpoint read and checked / torch.load, {name}",
            value=float(np.median(taken["read"] / taken["read_plain"])),
            goal="-",
            unit="x",
            how=f"{median['read_seconds']:.2f} s against {median['read_plain_seconds']:.2f} s",
        ),
    ]


def _equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], value) for name, value in wanted.items()
    )


def run(
    turns: int = 5,
    scales: dict[str, tuple[str, ...]] | None = None,
    folder: Path = Path("runs"),
) -> list[Measurement]:
    """Measures the model of each scale.

    Args:
        turns: of each way.
        scales: overrides by name; of quick and paper scale by default.
        folder: on the disk that is written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for name, overrides in (scales or SCALES).items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".benchmark-") as temporary:
            results += _measure(f"{name} scale", _checkpoint(overrides), Path(temporary), turns)
    return results


if __name__ == "__main__":
    print(*run(), sep="\n")
