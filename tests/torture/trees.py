"""Folders of results: whether every file in one is whole, and whether two hold the same."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from deepacc_lightning.training.checkpoint_io import read_intact

TEMPORARY = (".tmp", ".part-", ".part", "write-test")
"""In names of files that are written, or folders that are made, before they get their own."""
# Not results: when, how long, where, and what a program prints.
VARYING = {
    *("created", "seconds", "fit_seconds", "train_seconds", "command", "overrides", "git"),
    *("train_images", "device", "time/epoch", "out", "dir", "began", "wandb_id", "checkpoint"),
    *("dirpath", "best_model_path", "last_model_path", "kth_best_model_path", "best_k_models"),
    *("resume", "ckpt_path", "root", "date", "host", "pid", "name", "group"),
    # The latter of Lightning's callback: it does not restore that, and nothing is decided by it.
    *("images_per_second", "current_score"),
}
# Nor what a job of a sweep prints, which says that it goes on.
UNLIKE = (".lock", ".log", "log.txt")


def files(root: Path) -> Iterator[Path]:
    """Yields the files below a folder."""
    return (path for path in sorted(root.rglob("*")) if path.is_file() or path.is_symlink())


def leftovers(root: Path) -> list[str]:
    """Returns the files and folders below one that were never finished."""
    found = [
        path
        for path in root.rglob("*")
        if any(mark in path.name for mark in TEMPORARY)
        or (path.name.startswith(".") and not path.name.endswith((".lock", ".hydra")))
    ]
    return sorted(path.relative_to(root).as_posix() for path in found)


def half_written(root: Path) -> list[str]:
    """Returns the files of a folder that are not whole, each with what is wrong."""
    found = []
    for path in files(root):
        if any(mark in part for part in path.parts for mark in TEMPORARY):
            continue  # counted by leftovers
        try:
            _check(path)
        except Exception as error:
            found.append(f"{path.relative_to(root)}: {type(error).__name__}: {error}"[:200])
    return found


def _check(path: Path) -> None:
    if path.suffix in (".lock", ".txt", ".log"):
        return
    data = path.read_bytes()
    if not data:
        raise ValueError("0 bytes")
    if path.suffix == ".json":
        json.loads(data)
    elif path.suffix == ".yaml":
        yaml.safe_load(data)
    elif path.suffix in (".png", ".jpg"):
        if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None:
            raise ValueError("does not decode")
        if path.suffix == ".png" and not data.endswith(b"IEND\xaeB`\x82"):
            raise ValueError("cut short")
    elif path.suffix == ".pdf":
        if b"%%EOF" not in data[-64:]:
            raise ValueError("cut short")
    elif path.suffix == ".csv":
        rows = list(csv.reader(data.decode("utf-8").splitlines()))
        if len({len(row) for row in rows}) > 1 or not data.endswith(b"\n"):
            raise ValueError("rows of several lengths")
    elif path.suffix == ".ckpt":
        read_intact(path)


def differences(a: Path, b: Path, spared: tuple[str, ...] = ()) -> list[str]:
    """Returns how the files of two folders differ, but for times and places.

    Args:
        a: a folder.
        b: another.
        spared: names of files whose contents are not compared.
    """
    mine, other = ({p.relative_to(root).as_posix() for p in files(root)} for root in (a, b))
    mine, other = ({n for n in names if not n.endswith(UNLIKE)} for names in (mine, other))
    found = [f"only in one: {name}" for name in sorted(mine ^ other)]
    for name in sorted(mine & other):
        if Path(name).name in spared:
            continue
        where = _difference(a / name, b / name, (str(a), str(b)))
        if where:
            found.append(f"{name}: {where}")
    return found


def _difference(a: Path, b: Path, roots: tuple[str, str]) -> str:  # noqa: PLR0911
    if a.suffix == ".ckpt":
        return unlike(*(torch.load(p, weights_only=True) for p in (a, b)), roots=roots)
    one, other = a.read_bytes(), b.read_bytes()
    if one == other:
        return ""
    if a.suffix == ".json":
        return unlike(json.loads(one), json.loads(other), roots=roots)
    if a.suffix == ".yaml":
        return unlike(yaml.safe_load(one), yaml.safe_load(other), roots=roots)
    if a.suffix == ".csv":
        return unlike(*(_table(path) for path in (a, b)), roots=roots)
    if a.suffix == ".md":
        return unlike(*(_text(path) for path in (a, b)), roots=roots)
    return "other bytes"


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    times = ("time", "seconds", "images_per", "throughput", "memory")
    return [{k: v for k, v in r.items() if not any(t in k for t in times)} for r in rows]


def _text(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if "created" not in line]


def unlike(  # noqa: PLR0911
    a: Any, b: Any, where: str = "", *, roots: tuple[str, str] = ("", "")
) -> str:
    """Returns where two plain values differ first, empty if nowhere; see :data:`VARYING`.

    Args:
        a: a value.
        b: another.
        where: in what these are.
        roots: the folders that they tell of, whose own paths are no difference.
    """
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return "" if torch.equal(a, b) else f"{where}: other numbers"
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{where}: keys {sorted(map(str, a.keys() ^ b.keys()))[:5]}"
        for key in a:
            found = key not in VARYING and unlike(a[key], b[key], f"{where}.{key}", roots=roots)
            if found:
                return str(found)
        return ""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return f"{where}: {len(a)} and {len(b)} entries"
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            if found := unlike(one, other, f"{where}[{number}]", roots=roots):
                return str(found)
        return ""
    if isinstance(a, str) and isinstance(b, str) and all(roots):
        a, b = a.replace(roots[0], "OUT"), b.replace(roots[1], "OUT")
    same = a == b or all(isinstance(v, float) and math.isnan(v) for v in (a, b))
    return "" if same else f"{where}: {str(a)[:60]} and {str(b)[:60]}"
