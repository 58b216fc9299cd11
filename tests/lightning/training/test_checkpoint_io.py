from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from deepacc_d2.errors import DataError
from deepacc_lightning.training.checkpoint_io import (
    CheckpointError,
    SafeCheckpointIO,
    newest_intact,
    read_intact,
)


def _content(number: int) -> dict[str, Any]:
    weights = {"w": torch.full((1000,), float(number))}
    return {"model": weights, "deepacc_config": {"preset": "sep"}, "number": number}


def test_the_last_one_is_kept_beside_the_new(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    for number in range(3):
        SafeCheckpointIO().save_checkpoint(_content(number), path)
    assert read_intact(path)["number"] == 2
    assert read_intact(path.with_name("previous.ckpt"))["number"] == 1
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_the_best_one_is_replaced(tmp_path: Path) -> None:
    for number in range(2):
        SafeCheckpointIO().save_checkpoint(_content(number), tmp_path / "best.ckpt")
    assert [p.name for p in tmp_path.iterdir()] == ["best.ckpt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A folder whose files cannot grow over 64 KiB: a write beyond fails in the kernel."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_failed_write_leaves_the_checkpoints_alone(small_disk: Path) -> None:
    run = small_disk / "run"
    path = run / "checkpoints" / "last.ckpt"
    SafeCheckpointIO().save_checkpoint(_content(1), path)
    SafeCheckpointIO().save_checkpoint(_content(2), path)
    big = {**_content(3), "more": torch.zeros(100_000)}
    with pytest.raises(CheckpointError, match=rf"last\.ckpt could not be written.*RESUME={run}"):
        SafeCheckpointIO().save_checkpoint(big, path)
    assert read_intact(path)["number"] == 2
    assert read_intact(path.with_name("previous.ckpt"))["number"] == 1
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_a_full_disk_at_the_sync_is_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    SafeCheckpointIO().save_checkpoint(_content(1), tmp_path / "last.ckpt")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        SafeCheckpointIO().save_checkpoint(_content(2), tmp_path / "last.ckpt")
    assert read_intact(tmp_path / "last.ckpt")["number"] == 1


def test_the_newest_that_can_be_read(tmp_path: Path) -> None:
    assert newest_intact(tmp_path) == (None, {})
    for name, number in (("best", 1), ("previous", 2), ("last", 3)):
        torch.save(_content(number), tmp_path / f"{name}.ckpt")
    assert newest_intact(tmp_path) == (tmp_path / "last.ckpt", {})
    for name in ("last", "previous"):
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(path.read_bytes()[:-100])
    found, problems = newest_intact(tmp_path)
    assert found == tmp_path / "best.ckpt"
    assert [path.name for path in problems] == ["last.ckpt", "previous.ckpt"]
    assert all("is damaged" in problem for problem in problems.values())


def test_another_programs_file_is_not_gone_on_from(tmp_path: Path) -> None:
    torch.save({"weights": 1}, tmp_path / "last.ckpt")
    with pytest.raises(DataError, match="not written by this project"):
        read_intact(tmp_path / "last.ckpt")
