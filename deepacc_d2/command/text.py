"""What the table looks like as text: ``deepacc --help``, ``make help``, a page of the docs."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path

from deepacc_d2.command.arguments import example_words
from deepacc_d2.command.conf_keys import choices, groups_of, own_keys
from deepacc_d2.command.options import Command, Option
from deepacc_d2.command.table import ARGS, COMMANDS, ENVIRONMENT

COMPLETION = "print the shell's completion: bash, zsh or fish"
MANY = 3
"""Targets from which on a variable is listed once, for all of them."""


def public() -> list[Command]:
    """Returns the commands that ``deepacc`` has."""
    return [command for command in COMMANDS.values() if command.public]


def overview() -> str:
    """Returns ``deepacc --help``: at most 24 lines of 80 columns."""
    rows = {command.name: command.summary for command in public()} | {"completion": COMPLETION}
    return "\n".join(
        [
            "Usage: deepacc COMMAND [key=value ...]",
            "",
            *(f"  {name:<11} {summary}" for name, summary in rows.items()),
            "deepacc COMMAND --help lists its keys; deepacc --version prints the version.",
        ]
    )


def help_of(command: Command, conf: Path, width: int | None = None, *, full: bool = False) -> str:
    """Returns ``deepacc COMMAND --help``: a screen of 24 lines.

    Args:
        command: the command.
        conf: the directory of configs.
        width: of a line; that of the terminal by default.
        full: ``--help all``, which also explains the keys that have no variable of make's.
    """
    width = width or min(100, shutil.get_terminal_size((80, 24)).columns)
    lines = [f"deepacc {command.name}: {command.summary}", "", "Examples"]
    lines.append(f"  deepacc {command.name} {example_words(command)}".rstrip())
    if command.target:
        lines.append(f"  make {command.name} {command.example}")
    lines += ["", "Keys (and make's variables)" if command.target else "Keys"]
    rows = [(_label(option, command), _help(option)) for option in command.options]
    widest = max((len(label) for label, _ in rows), default=0)
    lines += _rows(rows, width, column=min(32, max(24, widest + 3)))
    if command.config:
        lines += (_of_config if full else _names)(command, conf, width)
    elif command.actions:
        lines += textwrap.wrap(f"Actions: {', '.join(command.actions)}.", width)
        lines.append(f"`deepacc {command.name} {command.actions[0]} --help` explains one.")
    elif command.name == "synthetic":
        lines += _rows([("...", "every field of SyntheticConfig: docs/SYNTHETIC.md")], width)
    return "\n".join(lines)


def _help(option: Option) -> str:
    needed = " (needed)" if option.required else ""
    default = "" if option.default is None else f" (default {option.default})"
    return f"{option.help}{needed}{default}"


def _label(option: Option, command: Command) -> str:
    return f"{option.key}= {option.variable if command.target else ''}".rstrip()


def _names(command: Command, conf: Path, width: int) -> list[str]:
    listed = {option.key for option in command.options}
    names = [key.name for key in own_keys(command.config, conf) if key.default]
    names = [name for name in [*names, *groups_of(command.config, conf)] if name not in listed]
    lines = textwrap.wrap(f"Further keys: {', '.join(names)}.", width, subsequent_indent="  ")
    return [*lines, f"`deepacc {command.name} --help all` explains them."]


def _of_config(command: Command, conf: Path, width: int) -> list[str]:
    listed = {option.key for option in command.options}
    lines: list[str] = []
    rows: list[tuple[str, str]] = []
    shown = False
    for key in own_keys(command.config, conf):
        if not key.default or key.name in listed:
            shown = False
        elif key.comment or not rows or not shown:
            rows.append((f"{key.name}={_short(key.default)}", key.comment))
            shown = True
        else:  # it shares the comment above the key before it
            label, comment = rows[-1]
            rows[-1] = (f"{label} {key.name}={_short(key.default)}", comment)
    if rows:
        lines += ["", f"Further keys, with their defaults (conf/{command.config}.yaml)"]
        lines += _rows(rows, width)
    groups = groups_of(command.config, conf)
    rows = [
        (f"{group}={choice}", ", ".join(choices(group, conf)))
        for group, choice in groups.items()
        if group not in listed
    ]
    if rows:
        lines += ["", "Files to choose from, and the default; their keys are <group>.<key>"]
        lines += _rows(rows, width)
    note = f"`deepacc {command.name} --cfg job` prints the composed configuration."
    if command.config in ("sweep", "ablation"):  # these compose their jobs themselves
        note = "Every key of `deepacc train` can be given, too."
    return [*lines, "", *textwrap.wrap(note, width)]


def _short(default: str) -> str:
    value = re.sub(r"\s+#.*$", "", default)
    return value if len(value) <= 24 else value[:21] + "..."


def _rows(rows: Iterable[tuple[str, str]], width: int, column: int = 24) -> list[str]:
    """Lays labels and texts out in two columns."""
    lines: list[str] = []
    for label, text in rows:
        wrapped = textwrap.wrap(text, max(20, width - column - 1)) or [""]
        head = f"  {label}"
        if len(head) >= column:
            lines += textwrap.wrap(label, width, initial_indent="  ", subsequent_indent="  ")
            wrapped = wrapped if text else []
        else:
            lines.append(f"{head:<{column}} {wrapped.pop(0)}".rstrip())
        lines += [f"{'':<{column}} {line}" for line in wrapped]
    return lines


def make_help() -> str:
    """Returns what ``make help`` shows."""
    lines = ["Usage: make TARGET [VARIABLE=value ...]"]
    targets = [command for command in COMMANDS.values() if command.target]
    for group in dict.fromkeys(command.group for command in targets):
        lines += ["", group]
        for command in targets:
            if command.group == group:
                example = f": make {command.name} {command.example}" if command.example else ""
                lines.append(f"  {command.name:<11} {command.summary}{example}")
    shared, own = variables()
    lines += ["", "Variables of most targets (unset ones keep the defaults in conf/)"]
    lines += [f"  {name:<11} {text}" for name, text in {**shared, "ARGS": ARGS}.items()]
    for target, texts in own.items():
        lines.append(f"Variables of make {target}")
        lines += [f"  {name:<11} {text}" for name, text in texts.items()]
    lines.append("Variables of the environment")
    lines += [f"  {name:<11} {text}" for name, text in ENVIRONMENT.items()]
    return "\n".join(lines)


def variables() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Returns make's variables with their help: those of many targets, and each target's own."""
    rows = [
        (command.name, option.variable, f"{'1: ' * (option.kind == 'switch')}{option.help}")
        for command in COMMANDS.values()
        if command.target
        for option in command.options
        if option.variable
    ]
    texts = [(variable, text) for _, variable, text in rows]
    shared = {variable: text for variable, text in texts if texts.count((variable, text)) >= MANY}
    own: dict[str, dict[str, str]] = {}
    for target, variable, text in rows:
        if shared.get(variable) != text:
            own.setdefault(target, {})[variable] = text
    return shared, own


def markdown() -> str:
    """Returns the table for docs/COMMAND.md."""
    lines: list[str] = []
    for command in public():
        lines += [f"### {command.name}", "", f"{command.summary[0].upper()}{command.summary[1:]}."]
        lines += ["", "```sh", f"deepacc {command.name} {example_words(command)}".rstrip()]
        if command.target:
            lines.append(f"make {command.name} {command.example}")
        lines += ["```", "", "| Key | make | What it is |", "| --- | --- | --- |"]
        for option in command.options:
            variable = f"`{option.variable}`" if option.variable and command.target else ""
            text = _help(option).replace("|", "\\|")
            lines.append(f"| `{option.key}` | {variable} | {text} |")
        lines.append("")
    return "\n".join(lines)
