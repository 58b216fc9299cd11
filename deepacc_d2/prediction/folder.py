"""The output folder of a job: what is where in it, what is done, and whose results it holds.

Layout: ``job.json``; ``cells/<name>.json``, written last and so the sign that a cell is done;
``overlays/<name>.png``; ``karyograms/<name>.png`` and ``.svg``; ``crops/<name>/<class>_<n>.png``
on request; and at the end ``cells.csv``, ``chromosomes.csv``, ``coco.json``, ``errors.csv``,
``cases/<case>.pdf`` and ``.json``, and ``worksheets/<case>.html`` and ``.pdf``, which
``laboratory.json`` fills.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepacc_d2.cell import Cell
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.files import read_json, write_json
from deepacc_d2.karyogram.layout import ALIGNMENTS
from deepacc_d2.partial import clear_files
from deepacc_d2.prediction.record import from_record

JOB = "job.json"
FOLDERS = ("cells", "overlays", "karyograms", "crops", "cases", "worksheets")
OURS = (
    *(JOB, *FOLDERS, "laboratory.json"),
    *("cells.csv", "chromosomes.csv", "coco.json", "errors.csv"),
)


@dataclass(frozen=True)
class OutputFolder:
    """The paths of a job's output; see the module's head."""

    root: Path

    def record(self, name: str) -> Path:
        """Returns the path of a cell's JSON."""
        return self.root / "cells" / f"{name}.json"

    def overlay(self, name: str) -> Path:
        """Returns the path of a cell's overlay."""
        return self.root / "overlays" / f"{name}.png"

    def karyogram(self, name: str, suffix: str = ".png") -> Path:
        """Returns the path of a cell's karyogram."""
        return self.root / "karyograms" / f"{name}{suffix}"

    def crops(self, name: str) -> Path:
        """Returns the folder of a cell's single chromosomes."""
        return self.root / "crops" / name

    def alignment(self) -> str:
        """Returns how chromosomes stand in the job's karyograms."""
        path = self.root / JOB
        job = read_json(path) if path.is_file() else {}
        drawings = job.get("drawings") if isinstance(job, Mapping) else None
        align = drawings.get("align") if isinstance(drawings, Mapping) else None
        return align if align in ALIGNMENTS else ALIGNMENTS[0]

    def is_done(self, name: str) -> bool:
        """Whether a cell is finished."""
        return self.record(name).is_file()

    def names(self) -> list[str]:
        """Returns the names of the finished cells, sorted."""
        return sorted(path.stem for path in (self.root / "cells").glob("[!.]*.json"))

    def cells(self) -> Iterator[Cell]:
        """Yields the finished cells by name, one in memory at a time.

        Raises:
            DataError: a record is damaged.
        """
        for name in self.names():
            yield self.read(name)

    def read(self, name: str) -> Cell:
        """Reads one finished cell.

        Raises:
            DataError: its record is damaged.
        """
        path = self.record(name)
        record = read_json(path)
        if not isinstance(record, Mapping):
            raise DataError(f"{path} is damaged: remove it and run the same command again")
        return from_record(record, str(path))


def open_folder(root: Path, job: Mapping[str, Any], *, overwrite: bool = False) -> OutputFolder:
    """Makes a job's output folder, or continues the job in it.

    Args:
        root: the folder.
        job: what decides the results: model, settings. A folder with results of another job is
            never mixed with this one's.
        overwrite: remove the results of an earlier job; other files in the folder stay.

    Raises:
        ConfigError: the folder holds something else, other settings' results, or is not writable.
    """
    path = root / JOB
    plain = json.loads(json.dumps(job, default=str))
    try:
        ours = path.is_file() and _is_of_kind(path, plain, root)
        if overwrite and ours:
            _remove(root)
        elif root.is_dir() and not ours and any(root.iterdir()):
            raise ConfigError(
                f"OUT {root} holds other files: choose a new or empty folder, or an earlier OUT"
            )
        if path.is_file():
            _check_same(path, plain, root)
            clear_files(root / name for name in ("", *FOLDERS))
        else:
            for folder in ("cells", "overlays", "karyograms"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            write_json(path, plain)
    except OSError as error:
        raise ConfigError(
            f"OUT {root} cannot be written ({error.strerror}): choose another"
        ) from error
    return OutputFolder(root)


def _remove(root: Path) -> None:
    for name in OURS:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_of_kind(path: Path, job: dict[str, Any], root: Path) -> bool:
    found = read_json(path)
    if not isinstance(found, dict) or found.get("kind") != job.get("kind"):
        raise ConfigError(f"OUT {root} holds a job.json of something else: choose another OUT")
    return True


def _check_same(path: Path, job: dict[str, Any], root: Path) -> None:
    found = read_json(path)
    differing = sorted(k for k in job.keys() | found.keys() if job.get(k) != found.get(k))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"OUT {root} holds results with another {key} ({_short(found.get(key))}, now "
            f"{_short(job.get(key))}): choose another OUT, or add OVERWRITE=1 to replace them"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
