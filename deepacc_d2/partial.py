"""What is being written and has not its own name yet: how it is called, and how it gets there.

A process that is killed leaves it behind. Its name holds the process's number, so that the next one
at work in the same place knows it for a dead one's, and removes it.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from deepacc_d2.errors import ConfigError

LEFTOVERS = ".*.tmp*"
"""Pattern of the names of :func:`partial_file`."""
_FILE = re.compile(r"\..*\.(\d+)\.tmp(\..*)?", re.DOTALL)
_FOLDER = re.compile(r"\.part-(\d+)", re.DOTALL)
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def partial_file(path: Path) -> Path:
    """Returns what a file is called while it is written: in its folder, with its suffix."""
    return path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")


def partial_folder(path: Path) -> Path:
    """Returns what a folder is called while it is filled."""
    return path.with_name(f".{path.name}.part-{os.getpid()}")


def resolved(out: str | Path, what: str = "OUT") -> Path:
    """Returns a path absolute and without links, whether it is there or not.

    Args:
        out: the path.
        what: by which the user named it.

    Raises:
        ConfigError: no file system has such a path: too long, a link to itself, below a file.
    """
    try:
        found = Path(out).resolve()
        found.exists()  # raises where it can never be
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ConfigError(f"{what} {out} cannot be used ({reason}): choose another") from None
    return found


def clear_files(folders: Iterable[Path]) -> None:
    """Removes the files that dead processes left unfinished in these folders themselves."""
    for folder in folders:
        for path in folder.glob(LEFTOVERS):
            found = _FILE.fullmatch(path.name)
            if found and not _is_alive(int(found[1])):
                path.unlink(missing_ok=True)


def clear_folders(path: Path) -> None:
    """Removes the folders that dead processes were filling to be called ``path``."""
    start = f".{path.name}"
    for other in path.parent.glob(".*"):
        rest = other.name.removeprefix(start)
        found = _FOLDER.fullmatch(rest.removeprefix(".old")) if rest != other.name else None
        if found and not _is_alive(int(found[1])):
            shutil.rmtree(other, ignore_errors=True)


def take_place(folder: Path, path: Path) -> None:
    """Renames a finished folder to ``path``; one that is there goes once that has succeeded.

    The two change names in one step where the system can, so that there is one at any time.

    Raises:
        OSError: the system's.
    """
    if not path.exists():
        folder.rename(path)
        return
    if not _exchange(folder, path):
        old = folder.with_name(folder.name.replace(".part-", ".old.part-"))
        path.rename(old)
        try:
            folder.rename(path)
        except BaseException:
            old.rename(path)
            raise
        folder = old
    shutil.rmtree(folder, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two paths change what they name; returns whether they did."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _is_alive(pid: int) -> bool:
    """Whether another process has a number; a file of our own number is of one before us."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True
