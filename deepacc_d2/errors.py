"""Errors that a user can fix, and how the command line reports them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Bad input, configuration or environment.

    The message is one line that names the offending thing and says how to fix it. Command-line
    entry points print it as ``error: <message>`` without a traceback and exit with status 2.
    """


class DataError(UserError):
    """A data set, an image or an annotation that cannot be used."""


class ConfigError(UserError):
    """Options that contradict each other or have an impossible value."""


def never_fail_to_print() -> None:
    """Makes standard output write what its encoding lacks as escapes instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def run_cli(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command-line ``main`` and turns its outcome into an exit status.

    :class:`UserError` exits 2 with one line on standard error; Ctrl-C exits 130, as shells expect.
    """
    never_fail_to_print()
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
