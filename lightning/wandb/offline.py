"""What an offline W&B run holds: ``python -m deepacc_lightning.wandb.offline runs/.../wandb``.

A ``.wandb`` file is a log in LevelDB's format (github.com/google/leveldb, doc/log_format.md) after
a header of 7 bytes, with one protocol buffer of W&B a record.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import struct
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepacc_d2.errors import DataError, UserError
from deepacc_lightning.core.cli import fail

HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
RECORD_HEADER = struct.Struct("<IHB")
"""Checksum, length and type of a record or a part of one."""


@dataclass
class OfflineRun:
    """The content of one ``.wandb`` file.

    Attributes:
        path: the file.
        run_id: W&B's id.
        project: where it will be uploaded to.
        name: of the run.
        group: what it is grouped by.
        job_type: its kind within the group.
        tags: its tags.
        config: its columns; nested where the config is.
        history: one dictionary by logged key a step.
        summary: the last of all that was logged; by key, nested as ``val/map50`` -> ``max``.
        metrics: by key or pattern, what was defined of it: ``step_metric`` and ``summary``.
        artifacts: files of tables that wait for their upload: by artifact, path by name.
        exit_code: null for a run that was killed, or is still written.
    """

    path: Path
    run_id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Path]] = field(default_factory=dict)
    exit_code: int | None = None

    def logged_keys(self) -> list[str]:
        """Returns the logged keys, without W&B's own, in alphabetical order."""
        return sorted({key for row in self.history for key in row if not key.startswith("_")})

    @property
    def files(self) -> Path:
        """The folder of media and other files."""
        return self.path.parent / "files"


def find_runs(folder: str | Path) -> list[Path]:
    """Returns the ``.wandb`` files below a folder, oldest first.

    Raises:
        DataError: there is none.
    """
    found = sorted(
        (path for path in Path(folder).rglob("run-*.wandb") if path.is_file()),
        # A directory's name begins with its time; latest-run is a link to one of them.
        key=lambda path: path.parent.name.removeprefix("offline-"),
    )
    found = [path for path in found if path.parent.name != "latest-run"]
    if not found:
        raise DataError(f"no .wandb file below {folder}: pass a run directory of make train")
    return found


def read_run(path: str | Path) -> OfflineRun:
    """Reads a ``.wandb`` file; of one that is still written, what is complete.

    Raises:
        DataError: it is none.
    """
    from wandb.proto import wandb_internal_pb2

    run = OfflineRun(Path(path))
    for payload in records(run.path):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told = record.run
            run.run_id, run.project, run.name = told.run_id, told.project, told.display_name
            run.group, run.job_type, run.tags = told.run_group, told.job_type, list(told.tags)
            _update(run.config, told.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run.history.append(row)
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "metric":
            _define(run.metrics, record.metric)
        elif kind == "artifact":
            contents = record.artifact.manifest.contents
            run.artifacts[record.artifact.name] = {c.path: Path(c.local_path) for c in contents}
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def records(path: Path) -> Iterator[bytes]:
    """Yields the records of a log in LevelDB's format; a truncated last one is left out.

    Raises:
        DataError: the file cannot be read or is no W&B run.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not content.startswith(HEADER):
        raise DataError(f"{path} is no W&B run: it does not begin as one")
    place, parts = len(HEADER), b""
    while place + RECORD_HEADER.size <= len(content):
        left = BLOCK - place % BLOCK
        if left < RECORD_HEADER.size:  # a block's end that has no room for a header
            place += left
            continue
        _, length, kind = RECORD_HEADER.unpack_from(content, place)
        place += RECORD_HEADER.size
        part = content[place : place + length]
        if len(part) < length:
            return
        place += length
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            yield parts


def _update(target: dict[str, Any], items: Any) -> None:
    """Puts the items of a message into nested dictionaries."""
    for item in items:
        keys = list(item.nested_key) or [item.key]
        place = target
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = json.loads(item.value_json)


def _define(metrics: dict[str, dict[str, Any]], told: Any) -> None:
    summary = [name for name in ("min", "max", "last") if getattr(told.summary, name)]
    metrics[told.name or told.glob_name] = {"step_metric": told.step_metric, "summary": summary}


def describe(run: OfflineRun) -> str:
    """Returns what a run holds, for people: its facts, columns, keys and results."""
    columns = {k: v for k, v in run.config.items() if not isinstance(v, (dict, list))}
    results = {k: v for k, v in run.summary.items() if re.fullmatch(r"(best|test|evaluate)/\w+", k)}
    by_prefix: dict[str, list[str]] = {}
    for key in run.logged_keys():
        prefix, slash, rest = key.partition("/")
        by_prefix.setdefault(prefix + slash, []).append(rest)
    facts = {
        "run": f"{run.run_id} {run.name}",
        "filed": f"project {run.project}, group {run.group}, job type {run.job_type}",
        "tags": ", ".join(run.tags),
        "ended": "not" if run.exit_code is None else f"with exit code {run.exit_code}",
        "columns": " ".join(f"{k}={v}" for k, v in sorted(columns.items()) if v is not None),
        "rows": str(len(run.history)),
        **{prefix: " ".join(keys) for prefix, keys in by_prefix.items()},
        "results": " ".join(
            f"{k}={v:.1f}" for k, v in sorted(results.items()) if isinstance(v, (int, float))
        ),
    }
    indent = " " * 9
    lines = [
        textwrap.fill(
            f"{name:<8} {text}",
            100,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in facts.items()
    ]
    # A command to copy stays in one piece.
    return "\n".join([*lines, f"upload   wandb sync {shlex.quote(str(run.path.parent))}"])


def main() -> None:
    """Command line: lists the runs below a folder; exits 2 on bad input."""
    parser = argparse.ArgumentParser(description="List what offline W&B runs hold.")
    parser.add_argument("folder", help="a run directory, or any folder above some")
    arguments = parser.parse_args()
    try:
        print("\n\n".join(describe(read_run(path)) for path in find_runs(arguments.folder)))
    except UserError as error:
        fail(error)


if __name__ == "__main__":
    main()
