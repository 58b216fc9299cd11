"""Errors that a user can fix, and how the command line reports them."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn


class UserError(Exception):
    """Bad input, configuration or environment.

    >>> issubclass(DataError, UserError) and issubclass(ConfigError, UserError)
    True

    The message is one line that names the offending thing and says how to fix it. Command-line
    entry points print it as ``error: <message>`` without a traceback and exit with status 2.
    """


class DataError(UserError):
    """A data set, an image or an annotation that cannot be used."""


class ConfigError(UserError):
    """Options that contradict each other or have an impossible value."""


class Terminated(BaseException):
    """The program was ended by SIGTERM, as Slurm sends it before it takes a node away.

    No ``Exception``, like ``KeyboardInterrupt``: nothing that handles errors is to catch it.
    """


def end_on_sigterm() -> None:
    """Makes SIGTERM raise :class:`Terminated`, so that a program cleans up and says what it was.

    By default a process is gone at once, with its temporary files and its records as they were.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    # Once: what cleans up is not to be interrupted in its turn; SIGKILL is for those in a hurry.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def never_fail_to_print() -> None:
    """Makes standard output write what its encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_room(error: BaseException) -> UserError | None:
    """Returns what a user is told of a file that did not fit on its disk, None of other errors."""
    if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
        return None
    what = f"{error.filename or 'a file'} cannot be written ({error.strerror})"
    return UserError(f"{what}: make room, or choose another OUT")


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command-line ``main`` and turns its outcome into an exit status.

    :class:`UserError` exits 2 with one line on standard error; Ctrl-C exits 130 and SIGTERM 143,
    as shells expect.
    """
    never_fail_to_print()
    end_on_sigterm()
    try:
        status = main() or 0
    except (UserError, OSError) as error:
        known = error if isinstance(error, UserError) else no_room(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except Terminated:
        print("interrupted by SIGTERM", file=sys.stderr)
        status = 143
    sys.exit(status)
