"""Checkpoint files: written whole or not at all, the one before kept, damage found when read."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.errors import DataError, UserError
from deepacc_d2.files import whole_file

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"


class CheckpointError(UserError):
    """A checkpoint could not be written."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the one it replaces, onto the disk, and renames it.

    Lightning writes to a temporary file too, but in the system's folder for those, from where a
    move to another disk is a copy that can be cut short; and it holds the whole file in memory.
    The ``last.ckpt`` before this one stays as ``previous.ckpt``.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Saves a checkpoint.

        Raises:
            CheckpointError: the disk is full or cannot be written to; what lay there is intact.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if path.name == LAST and path.exists():
                    path.replace(path.with_name(PREVIOUS))
            sync_folder(path.parent)
        except (OSError, RuntimeError) as error:
            # torch's writer turns a full disk into a RuntimeError of its own.
            if isinstance(error, RuntimeError) and not _is_write_error(error):
                raise
            reason = error.strerror if isinstance(error, OSError) else None
            raise CheckpointError(
                f"checkpoint {path} could not be written ({reason or 'no space left?'}); the one "
                f"before is intact: make room and go on with RESUME={path.parent.parent}"
            ) from error


def sync_folder(folder: Path) -> None:
    """Writes a folder's names to the disk, which a renamed file needs to outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_write_error(error: RuntimeError) -> bool:
    text = str(error)
    return "PytorchStreamWriter" in text or "unexpected pos" in text or "file write" in text


def read_intact(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint of ours, every byte of it checked against the file's checksums.

    Raises:
        DataError: as :func:`~deepacc_d2.checkpoint.read_checkpoint`, or a checksum is off.
    """
    path = Path(path)
    if path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataError(f"checkpoint {path} is damaged ({error})") from error
        if damaged:
            raise DataError(f"checkpoint {path} is damaged ({damaged} has a wrong checksum)")
    return read_checkpoint(path)


def newest_intact(folder: str | Path) -> tuple[Path | None, dict[Path, str]]:
    """Finds the checkpoint that a training goes on from.

    Args:
        folder: ``checkpoints`` of a run directory.

    Returns:
        Of ``last.ckpt``, ``previous.ckpt`` and ``best.ckpt`` the first that can be read, null if
        none can, and what is wrong with those before it, a line for each path.
    """
    problems = {}
    for name in (LAST, PREVIOUS, BEST):
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            read_intact(path)
        except DataError as error:
            problems[path] = str(error)
            continue
        return path, problems
    return None, problems
