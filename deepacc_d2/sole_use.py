"""One job at a time in one place: a lock that says which process has it.

Two jobs that write to one folder overwrite each other's files and mix their results. The lock is a
hidden file next to the folder, ``.NAME.lock``. The system frees it when its process ends, in
whatever way: that of a dead process stops nobody.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from deepacc_d2.errors import ConfigError
from deepacc_d2.partial import resolved
from deepacc_d2.secret import redacted

FOREVER = -1.0
"""How long to wait, in seconds, for what may take any time."""

_MOMENT = 0.2
# Locks of this process by their paths, with the thread that has them: a job may ask for its place
# again within itself.
_held: dict[Path, int] = {}


class OccupiedError(ConfigError):
    """Another job is writing there."""


@contextmanager
def sole_use(out: str | Path, *, wait: float = 0.0) -> Iterator[None]:
    """Keeps every other job from a place while the block runs.

    Within a block of the same thread for the same place it does nothing.

    Args:
        out: the folder, or the file, that is written; it need not be there.
        wait: seconds to wait for another job to end; :data:`FOREVER` for as long as it takes.

    Raises:
        OccupiedError: another job has the place: says which process, and what it runs.
        ConfigError: nothing can be written there.
    """
    place = resolved(out)
    path = lock_of(place)
    if _held.get(path) == threading.get_ident():
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]
    # Who only asks whether a lock is free has it for a moment, too.
    lock = FileLock(path, timeout=wait if wait < 0 else max(wait, _MOMENT), thread_local=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OccupiedError(
            f"{out} is in use by {holder(path)}: wait until that ends, stop it, or choose another "
            "OUT"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"output {out} cannot be written ({error.strerror or error}): choose another by OUT="
        ) from error
    _held[path] = threading.get_ident()
    try:
        with suppress(OSError):
            path.write_text(json.dumps(_self()) + "\n", encoding="utf-8")
        yield
    finally:
        del _held[path]
        # Before the lock is freed: who has opened the file by now sees that it is gone, and makes
        # a new one.
        with suppress(OSError):
            path.unlink()
        lock.release()
        for folder in made:
            with suppress(OSError):  # something was put into it
                folder.rmdir()


def lock_of(place: Path) -> Path:
    """Returns the path of a place's lock: in the folder itself where none can be next to it."""
    sibling = place.parent / f".{place.name}.lock"
    if place.is_dir() and not os.access(place.parent, os.W_OK):
        return place / ".lock"
    return sibling


def is_in_use(place: Path) -> bool:
    """Whether a job of any process has a place at the moment."""
    return is_held(lock_of(place.resolve()))


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file; one that died does not."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def holder(path: Path) -> str:
    """Describes the process that has a lock, as far as its file says."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        where = "" if found["host"] == socket.gethostname() else f" on {found['host']}"
        return f"process {found['pid']}{where} (`{found['command']}`, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _self() -> dict[str, object]:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    command = os.environ.get("DEEPACC_COMMAND") or shlex.join(words)
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": str(redacted(command))[:300],
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
