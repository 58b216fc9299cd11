"""Runs a make target's program in the project's environment: `launch.py TARGET`.

Reads make's variables (EXP, DATA, ...) from the environment, where make exports them, composes the
program's arguments by the table in deepacc_d2/command, makes sure that the environment is complete
(setup_env.py) and replaces itself by the program, so that Ctrl-C and the exit status are the
program's own. Going through Python instead of recipe text keeps every value in one piece, whatever
blanks and quotes it holds. `make -n` prints the command. Only the standard library may be imported
here, and by deepacc_d2/command.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import setup_env

from deepacc_d2.command.arguments import compose, make_command
from deepacc_d2.command.program import start
from deepacc_d2.command.table import COMMANDS
from deepacc_d2.command.text import make_help
from deepacc_d2.errors import UserError

ROOT = setup_env.ROOT


def is_dry_run(makeflags: str) -> bool:
    """Whether make was called with -n: single-letter flags are the first word of MAKEFLAGS."""
    first = makeflags.split(" ", maxsplit=1)[0]
    return "n" in first and "=" not in first and not first.startswith("--")


def main() -> None:
    """Command line: see the module's docstring."""
    targets = [name for name, command in COMMANDS.items() if command.target and command.program]
    if sys.argv[1:] == ["help"]:
        print(make_help())
        return
    if len(sys.argv) != 2 or sys.argv[1] not in targets:
        setup_env.fail(f"usage: launch.py {'|'.join(targets)}|help")
    venv = Path(os.environ.get("VENV") or ".venv")
    python = venv / "bin" / "python"
    try:
        arguments = compose(sys.argv[1], os.environ, ROOT / "conf")
        if is_dry_run(os.environ.get("MAKEFLAGS", "")):
            print(shlex.join([str(python), *arguments]))
            return
        setup_env.ensure(ROOT / venv, setup_env.parse_extras(os.environ.get("EXTRAS", "")))
    except UserError as error:
        setup_env.fail(str(error))
    except KeyboardInterrupt:
        setup_env.fail("interrupted; the next make installs what is missing", status=130)
    os.chdir(ROOT)
    if sys.argv[1] in ("test", "coverage"):
        # The tests' processes share the cores; more threads in each would wait for each other.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    command = COMMANDS[sys.argv[1]]
    start(command, str(python), arguments, make_command(sys.argv[1], os.environ))


if __name__ == "__main__":
    main()
