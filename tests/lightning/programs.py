"""Programs of the project, started in processes that have imported everything already.

An import of torch, Detectron2 and Lightning takes seconds of CPU. A server does it once; each
program is a fork of it and otherwise what ``python -m MODULE`` is: it has a status, signals, files
for what it prints, and may start processes itself. Run as a script, this file is the server.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Program:
    """A program that runs; what of ``subprocess.Popen`` the tests use."""

    def __init__(self, server: Programs, pid: int, files: tuple[Path, Path]) -> None:
        self._server, self.pid, self._files = server, pid, files
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns its status, None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask({"status_of": self.pid})
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """Waits for its end and returns its status."""
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.pid} still runs: {self.said()[1]}")
            time.sleep(0.05)
        return status

    def said(self) -> tuple[str, str]:
        """Returns what it has printed: standard output and error."""
        out, error = (path.read_text(encoding="utf-8", errors="replace") for path in self._files)
        return out, error

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Waits for its end and returns what it has printed."""
        self.wait(timeout)
        return self.said()

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)


class Programs:
    """The server, as the tests see it.

    Args:
        folder: for what the programs print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._server: subprocess.Popen[str] | None = None

    def ask(self, task: Mapping[str, Any]) -> Any:
        """Sends a task to the server and returns its answer."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, str(Path(__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(task), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def start(
        self, module: str, *arguments: str, env: Mapping[str, str] | None = None, own: bool = False
    ) -> Program:
        """Starts ``python -m MODULE ARGUMENTS``.

        Args:
            module: the program, such as ``deepacc_lightning.train``.
            arguments: its arguments.
            env: added to the environment.
            own: make it the leader of a group of processes of its own.
        """
        self._count += 1
        files = (self._folder / f"{self._count}.out", self._folder / f"{self._count}.err")
        environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", **(env or {})}
        task = {"module": module, "arguments": arguments, "env": environment, "own": own}
        pid = self.ask({**task, "files": [str(path) for path in files], "folder": str(Path.cwd())})
        return Program(self, pid, files)

    def run(
        self, module: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs ``python -m MODULE ARGUMENTS``."""
        program = self.start(module, *arguments, env=env)
        out, error = program.communicate()
        return subprocess.CompletedProcess([module, *arguments], program.wait(), out, error)

    def close(self) -> None:
        """Ends the server."""
        if self._server is not None:
            self._server.communicate()


def serve() -> dict[str, Any] | None:
    """Answers tasks; returns a program's, in its process, and None when there are no more."""
    for line in sys.stdin:
        task = json.loads(line)
        if "status_of" in task:
            pid, status = os.waitpid(task["status_of"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                return task
        print(json.dumps(answer), flush=True)
    return None


def become(task: Mapping[str, Any]) -> None:
    """Runs a program in this process."""
    if task["own"]:
        os.setsid()
    os.chdir(task["folder"])
    os.environ.clear()
    os.environ.update(task["env"])
    sys.path[:0] = task["env"]["PYTHONPATH"].split(os.pathsep)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path in ((0, os.devnull), *enumerate(task["files"], start=1)):
        os.dup2(os.open(path, flags if number else os.O_RDONLY), number)
    # A shell's background job, as a CI runner may be, has SIGINT ignored and passes that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [task["module"], *task["arguments"]]
    warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: the module is imported already
    runpy.run_module(task["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    import deepacc_lightning.ablation
    import deepacc_lightning.compare
    import deepacc_lightning.sweep
    import deepacc_lightning.train  # noqa: F401

    found = serve()
    if found is not None:
        become(found)
