"""What an entry of the table of commands says."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal[
    "value",  # as it stands: a number, a name, an override of Hydra's grammar
    "number",  # of programs with flags
    "text",  # any text, quoted for Hydra
    "path",  # made absolute by make; quoted for Hydra
    "folder",  # the word "folder", or a path
    "switch",  # of make: 1 or unset
    "data",  # a file in conf/data, or directories
    "list",  # names with blanks or commas between, as [a,b]
    "seeds",  # a count, or seeds with commas between, as [0,1]
    "several",  # values with blanks or commas between, as a,b
    "runs",  # paths or patterns, each an argument of its own
]


class Option(NamedTuple):
    """One key of a command.

    Attributes:
        key: in Hydra's grammar; of programs with flags, the flag's name.
        help: one line.
        variable: make's; empty for none.
        kind: what a value is.
        required: whether the command does nothing without it.
        default: of programs with flags; those with a config have it there.
    """

    key: str
    help: str
    variable: str = ""
    kind: Kind = "value"
    required: bool = False
    default: Any = None


class Command(NamedTuple):
    """One command, make target, or both.

    Attributes:
        name: as it is typed.
        group: heading that it is listed under.
        summary: what it does, in a few words.
        example: make's variables, as they could be typed; the command's example is made of it.
        program: Python's arguments that start it; empty where the Makefile does it itself.
        options: in the order in which they are passed.
        config: the file in ``conf``; empty for a program with flags.
        several: whether it takes several data sets.
        target: whether make has it.
        exclusive: two variables that cannot be given together, and why.
        actions: of a program that does several things: the words that name them, each with flags
            and a help of its own.
        many_sizes: it detects on images of any number of sizes, see
            :data:`deepacc_d2.command.program.MANY_SIZES`.
    """

    name: str
    group: str
    summary: str
    example: str = ""
    program: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    config: str = ""
    several: bool = False
    target: bool = True
    exclusive: tuple[str, str, str] | None = None
    actions: tuple[str, ...] = ()
    many_sizes: bool = False

    @property
    def public(self) -> bool:
        """Whether ``deepacc`` has it."""
        return self.group != DEVELOPMENT


DEVELOPMENT = "Development"
