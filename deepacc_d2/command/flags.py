"""The parser of a program with flags, made of the table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deepacc_d2.command.arguments import is_positional
from deepacc_d2.command.options import Option
from deepacc_d2.command.table import COMMANDS


def build_parser(name: str) -> argparse.ArgumentParser:
    """Returns the parser of a command with its options, as ``--key value``."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"deepacc {name}", description=f"{command.summary}.")
    for option in command.options:
        add_option(parser, option)
    return parser


def add_option(parser: Any, option: Option) -> None:
    """Adds one option to a parser or a group of one."""
    flag = f"--{option.key.replace('_', '-')}"
    if option.kind == "switch":
        parser.add_argument(flag, action="store_true", help=option.help)
    elif is_positional(option):
        nargs = "+" if option.kind == "runs" else None
        parser.add_argument(option.key, nargs=nargs, type=type_of(option), help=option.help)
    else:
        parser.add_argument(
            flag,
            required=option.required,
            default=option.default,
            type=type_of(option),
            help=option.help,
        )


def type_of(option: Option) -> Any:
    """Returns what makes a value of a text."""
    if option.kind == "path":
        return Path
    if option.kind == "number":
        return float
    return str if option.default is None else type(option.default)
