"""Keys of the files in ``conf``, with their defaults and comments, read without a YAML library."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HIDDEN = ("defaults", "hydra", "_target_", "_partial_")
GLOBAL = "# @package _global_"


class Key(NamedTuple):
    """One key of a file.

    Attributes:
        name: with dots.
        default: as it is written; empty for a node with keys of its own.
        comment: what is written above it; empty where it shares that of the key before it.
    """

    name: str
    default: str
    comment: str


def conf_dir() -> Path:
    """Returns the directory of ``conf``: next to the sources, or inside an installed wheel.

    Raises:
        FileNotFoundError: there is neither.
    """
    source = Path(__file__).resolve().parents[2] / "conf"
    if (source / "train.yaml").is_file():
        return source
    spec = importlib.util.find_spec("deepacc_conf")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the configs of deepacc-d2 are not installed")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def read_keys(path: Path) -> list[Key]:
    """Returns the keys of a file, nested ones after the node that they are in."""
    found: list[Key] = []
    comment: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.removeprefix("#").strip())
            continue
        match = re.match(r"( *)([\w@/.]+):(?: +(.*))?$", line)
        if match:
            indent, name, value = len(match[1]), match[2], (match[3] or "").strip()
            while parents and parents[-1][0] >= indent:
                parents.pop()
            dotted = ".".join([*(parent for _, parent in parents), name])
            if not any(part in HIDDEN for part in dotted.split(".")):
                found.append(Key(dotted, value, " ".join(comment)))
            if not value:
                parents.append((indent, name))
        comment = []
    return found


def defaults_of(path: Path) -> list[tuple[str, str]]:
    """Returns group and choice of each entry in a file's defaults list; no group for a file."""
    found: list[tuple[str, str]] = []
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("defaults:"):
            inside = True
        elif inside and re.match(r"\s+- ", line):
            entry = line.strip().removeprefix("- ").strip()
            group, colon, choice = entry.partition(": ")
            if entry != "_self_" and not group.startswith("override"):
                found.append((group, choice.strip()) if colon else ("", entry))
        elif inside and not line.strip().startswith("#"):
            break
    return found


def groups_of(config: str, conf: Path) -> dict[str, str]:
    """Returns the groups that a command chooses from, each with its default choice."""
    groups: dict[str, str] = {}
    for group, choice in defaults_of(conf / f"{config}.yaml"):
        if not group:
            groups |= groups_of(choice, conf)
        elif (conf / group.partition("@")[0]).is_dir():
            groups[group] = choice
    return groups


def choices(group: str, conf: Path) -> list[str]:
    """Returns the names of the files of a group."""
    return sorted(path.stem for path in (conf / group.partition("@")[0]).glob("*.yaml"))


def own_keys(config: str, conf: Path) -> list[Key]:
    """Returns the keys that the file of a command has itself."""
    return read_keys(conf / f"{config}.yaml")


def all_keys(config: str, conf: Path) -> Iterator[Key]:
    """Yields the keys of a command, with those of its groups' default choices."""
    path = conf / f"{config}.yaml"
    yield from read_keys(path)
    for group, choice in defaults_of(path):
        if not group:
            yield from all_keys(choice, conf)
        elif choice != "null":
            yield from _of_choice(group.partition("@")[0], choice, conf)


def _of_choice(group: str, choice: str, conf: Path) -> Iterator[Key]:
    path = conf / group / f"{choice}.yaml"
    if not path.is_file():
        return
    for inner_group, inner in defaults_of(path):
        folder = f"{group}/{inner_group}" if inner_group else group
        yield from _of_choice(folder.partition("@")[0], inner, conf)
    is_global = path.read_text(encoding="utf-8").startswith(GLOBAL)
    for key in read_keys(path):
        yield key if is_global else key._replace(name=f"{group.replace('/', '.')}.{key.name}")
