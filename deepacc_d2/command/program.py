"""``deepacc COMMAND key=value ...``: finds the command, checks its words and starts its program.

The program replaces this process, under the same environment as make gives it, so that both are the
same thing and Ctrl-C and the exit status are the program's own.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
import sysconfig
from collections.abc import MutableMapping, Sequence
from typing import NoReturn

from deepacc_d2.command.arguments import arguments_of, nearest
from deepacc_d2.command.completion import SCRIPTS, candidates
from deepacc_d2.command.conf_keys import conf_dir
from deepacc_d2.command.options import Command
from deepacc_d2.command.table import COMMANDS
from deepacc_d2.command.text import help_of, overview, public
from deepacc_d2.errors import ConfigError, UserError

# glibc gives a large tensor's pages back to the kernel when it is freed and takes new, zeroed ones
# for the next. Kept instead, a CPU training step has half the page faults and is a tenth faster.
ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    # Detectron2 calls what torch has deprecated: nothing that a user could do about.
    "PYTHONWARNINGS": "ignore::FutureWarning:torch.jit._script",
}
# oneDNN keeps what it prepared for each size of an image, with its working memory, and hardly any
# size comes twice. Not kept, 60 images take two thirds of the memory, and no longer.
MANY_SIZES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "0", "LRU_CACHE_CAPACITY": "16"}
"""For commands that detect on folders of images."""
DETECTRON2 = "sal-detectron2==0.7.2"
"""Detectron2's wheel, as in requirements/detectron2.in."""
NEEDED = ("torch", "torchvision", "pytorch_lightning", "hydra", "wandb", "cv2")


def start(command: Command, python: str, arguments: Sequence[str], typed: str) -> NoReturn:
    """Replaces this process by ``python ARGUMENTS``.

    Args:
        command: what is started.
        python: the interpreter.
        arguments: of it.
        typed: the command line, for reports that name it.
    """
    set_environment(os.environ, command, typed)
    sys.stdout.flush()
    os.execv(python, [python, *arguments])


def set_environment(environment: MutableMapping[str, str], command: Command, typed: str) -> None:
    """Sets what a command's program is started with, unless the user has set it."""
    for name, value in (ENVIRONMENT | (MANY_SIZES if command.many_sizes else {})).items():
        environment.setdefault(name, value)
    environment["DEEPACC_COMMAND"] = typed


def check_installed() -> None:
    """Checks that the big packages are there, without importing them.

    Raises:
        ConfigError: says how to install the first that is missing.
    """
    if importlib.util.find_spec("detectron2") is None:
        # The only wheel is tagged for Python 3.10, for the sake of a compiled module that nothing
        # here needs; pip takes it only into an explicit folder.
        folder = shlex.quote(sysconfig.get_path("purelib"))
        raise ConfigError(
            "Detectron2 is missing: install it by "
            f"{shlex.quote(sys.executable)} -m pip install --no-deps --only-binary=:all: "
            f"--python-version 3.10 --target {folder} {DETECTRON2}"
        )
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"{name} is missing: install this package with its dependencies, by "
                f"{shlex.quote(sys.executable)} -m pip install 'deepacc-d2 @ <checkout or wheel>'"
            )


def find(name: str) -> Command:
    """Returns a command by its name.

    Raises:
        ConfigError: there is none; the nearest one is named.
    """
    command = COMMANDS.get(name)
    if command is None or not command.public:
        names = [*(c.name for c in public()), "completion"]
        raise ConfigError(f"deepacc has no command {name}{nearest(name, names)}")
    return command


def run(words: Sequence[str]) -> int:
    """Does what the words say.

    Returns:
        The exit status, where no program was started.

    Raises:
        UserError: bad words, or a missing package.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        # By its name: an import would tie this room to what the package imports.
        print(vars(sys.modules["deepacc_d2"])["__version__"])
        return 0
    if words[0] == "completion":
        return complete(words[1:])
    command = find(words[0])
    rest = list(words[1:])
    of_action = bool(rest) and rest[0] in command.actions
    if any(word in ("-h", "--help") for word in rest) and not of_action:
        print(help_of(command, conf_dir(), full="all" in rest))
        return 0
    check_installed()
    arguments = arguments_of(command, rest, conf_dir())
    start(command, sys.executable, arguments, shlex.join(["deepacc", *words]))


def complete(words: Sequence[str]) -> int:
    """Prints a shell's script, or what the last of the words after ``query`` could become.

    Raises:
        ConfigError: the shell is unknown.
    """
    if words[:1] == ["query"]:
        print("\n".join(candidates(list(words[1:]), conf_dir())))
        return 0
    if len(words) != 1 or words[0] not in SCRIPTS:
        raise ConfigError(f"deepacc completion needs a shell: {', '.join(SCRIPTS)}")
    print(SCRIPTS[words[0]])
    return 0


def main() -> int:
    """Entry point; exits 2 with one line on bad input."""
    try:
        return run(sys.argv[1:])
    except (UserError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # deepacc --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def script() -> int:
    """The console script: like every installed one, it imports nothing from where it is called."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    return main()
