"""Runs the project's programs as their users do, hundreds of times, without their seconds of start.

A child is forked from a process that has imported everything, and then runs the program's module as
``python -m`` would: own arguments, own session, own standard output and error, own exit status.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import os
import resource
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LATE = ("training.module", "training.datamodule", "training.callbacks", "training.csv_logger")
PATIENCE = 300.0
"""Seconds of processor time that a program may take, and that it may wait without taking any."""
STILL = 0.2
"""Less processor time than this within :data:`PATIENCE` is none: a busy machine gives some."""
TRACE = "Traceback (most recent call last)"


@dataclass
class Ended:
    """How a program ended.

    Attributes:
        status: exit status; negative for a signal; None where it had to be killed for hanging.
        out, err: what it printed.
        seconds: that it took.
    """

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it said on standard error, without progress bars."""
        found = [line.rsplit("\r", 1)[-1].strip() for line in self.err.splitlines()]
        bars = ("it/s", "s/it", "image/s", "?it", "?image", "%|")
        return [line for line in found if line and not any(mark in line for mark in bars)]

    def problems(self, *allowed: int) -> str:
        """Returns what is wrong with the end, empty if all is well: a clean exit, or one line."""
        if self.status is None:
            return f"hangs: killed after {self.seconds:.0f} s; {self.err[-300:]}"
        if TRACE in self.out + self.err:
            return f"traceback: {(self.err if TRACE in self.err else self.out)[-1200:]}"
        if self.status not in allowed:
            return f"status {self.status}, not {allowed}: {self.err[-600:]} {self.out[-300:]}"
        if self.status and len(self.lines) != 1:
            return f"status {self.status} with {len(self.lines)} lines: {self.lines}"
        return ""


class Started:
    """A program that runs.

    Args:
        module: as of ``python -m``.
        arguments: its arguments.
        folder: for what it prints; also where it runs.
        environment: variables to set.
        limits: of resources, such as ``{resource.RLIMIT_FSIZE: 4096}``.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        _import(module)
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = (folder / "stdout.txt", folder / "stderr.txt")
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(module, list(arguments), folder, self.paths, environment or {}, limits or {})

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Waits for its end; kills it with all its processes where it hangs or takes too long.

        Args:
            seconds: see :data:`PATIENCE`.
        """
        used, since = 0.0, time.monotonic()
        while True:
            ended = self.ended_within(time.monotonic() - self.began + 1.0)
            if ended is not None:
                return ended
            now = session_time(self.pid)
            if now > used + STILL:
                used, since = now, time.monotonic()
            if now > seconds or time.monotonic() - since > seconds:
                self.kill(whole=True)
                return self._ended(None)

    def ended_within(self, seconds: float) -> Ended | None:
        """Returns how it ended, if it does so within a time from its start."""
        while time.monotonic() < self.began + seconds:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return self._ended(os.waitstatus_to_exitcode(status))
            time.sleep(0.01)
        return None

    def kill(self, *, whole: bool) -> None:
        """Kills it at once, alone or with all processes that it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL) if whole else os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def orphans(self, patience: float = 20.0) -> list[int]:
        """Returns its processes that are still there after a while, and ends them."""
        deadline = time.monotonic() + patience
        while (left := list(_of_session(self.pid))) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return left

    def _ended(self, status: int | None) -> Ended:
        out, err = (path.read_text("utf-8", "replace") for path in self.paths)
        return Ended(status, out, err, time.monotonic() - self.began)


@functools.cache
def _import(module: str) -> None:
    """Imports a program with what it would import late, for all its children."""
    late = ("deepacc_d2.modeling", "deepacc_d2.karyogram", "deepacc_d2.evaluation.report")
    for name in (module, *late, *(f"deepacc_lightning.{n}" for n in LATE)):
        importlib.import_module(name)
    for name in ("hydra._internal.core_plugins.basic_sweeper", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)
    gc.freeze()  # or each child's first collection copies all of it


def address_space() -> int:
    """Returns the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run(
    module: str, arguments: Sequence[str], folder: Path, seconds: float = PATIENCE, **how: object
) -> Ended:
    """Runs a program to its end; see :class:`Started`."""
    return Started(module, arguments, folder, **how).wait(seconds)  # type: ignore[arg-type]


def session_time(session: int) -> float:
    """Returns the seconds of processor time that the processes of a session have taken."""
    return _time(_of_session(session))


def tree_time(root: int) -> float:
    """Returns the same of a process and of all that it started, and they."""
    every = _processes()
    found, new = {}, {root}
    while new:
        found |= {pid: every[pid] for pid in new if pid in every}
        new = {pid for pid, fields in every.items() if int(fields[1]) in new} - found.keys()
    return _time(found)


def _time(processes: Mapping[int, list[str]]) -> float:
    """Adds up what processes have taken, with those that they started and that have ended."""
    ticks = sum(int(n) for fields in processes.values() for n in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _of_session(session: int) -> dict[int, list[str]]:
    """Returns what the system says of the processes of a session, by their numbers."""
    return {
        pid: fields
        for pid, fields in _processes().items()
        if int(fields[3]) == session and fields[0] != "Z"
    }


def _processes() -> dict[int, list[str]]:
    """Returns what the system says of every process, from its state on, by their numbers."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold blanks: what comes after the last one counts.
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            found[int(entry.name)] = fields
    return found


def _become(  # noqa: PLR0917
    module: str,
    arguments: list[str],
    folder: Path,
    paths: tuple[Path, Path],
    environment: Mapping[str, str],
    limits: Mapping[int, int],
) -> NoReturn:
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, path in zip((1, 2), paths, strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(environment)
        for kind, value in limits.items():
            resource.setrlimit(kind, (value, value))
        sys.argv = [module, *arguments]
        # Run anew, as the main module.
        sys.modules.pop(module, None)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = _status(error)
    except BaseException:
        traceback.print_exc()
    finally:
        # What an interpreter does at its end; a return would go on as the parent.
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _status(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return int(error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1
