"""A job continued in its folder: what is there is made to agree with what this call says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from deepacc_d2.cell import Cell
from deepacc_d2.files import read_json, write_json
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.inputs import Input
from deepacc_d2.prediction.names import fold_name, other_name
from deepacc_d2.prediction.record import to_record


@dataclass(frozen=True)
class Continued:
    """What is to be done of a job.

    Attributes:
        inputs: the images, by the names that their results have or get.
        done: names of those that are finished.
        others: images of finished cells that this call does not name; their results stay.
    """

    inputs: list[Input]
    done: frozenset[str]
    others: tuple[str, ...]

    def line(self) -> str:
        """Says which results are of other images; empty if none."""
        if not self.others:
            return ""
        count = len(self.others)
        what = "1 cell is of an image" if count == 1 else f"{count} cells are of images"
        return (
            f"note: {what} that IMAGES does not name now, such as {self.others[0]}: kept; "
            "OVERWRITE=1 makes the results anew, without"
        )


def continue_job(folder: OutputFolder, inputs: Sequence[Input], *, write: bool) -> Continued:
    """Finds the results that an earlier call left of images, by the images' paths.

    A name alone does not tell: of two folders' ``a.png`` each call may name another one. The cases
    of the images are what this call says; records that say otherwise are written anew.

    Args:
        folder: the job's.
        inputs: the images of this call.
        write: whether records may be changed: one process does.

    Raises:
        DataError: a record is damaged.
    """
    by_name = {name: _without_chromosomes(folder.read(name)) for name in folder.names()}
    by_path = {cell.path: name for name, cell in by_name.items() if cell.path}
    taken = {fold_name(name): name for name in by_name}
    named: list[Input] = []
    done: set[str] = set()
    claimed = {by_path[str(item.path)] for item in inputs if str(item.path) in by_path}
    for item in inputs:
        name = by_path.get(str(item.path))
        if name is None:
            own = taken.get(fold_name(item.name))
            if own is not None and own not in claimed and _moved(by_name[own], item.path):
                name = own
        if name is not None:
            claimed.add(name)
            done.add(name)
            found = replace(item, name=name)
            _agree(folder, by_name[name], found, write=write)
        else:
            found = replace(item, name=other_name(item.name, item.path, taken))
            taken[fold_name(found.name)] = found.name
        named.append(found)
    others = tuple(by_name[name].path or name for name in by_name if name not in done)
    return Continued(named, frozenset(done), others)


def _without_chromosomes(cell: Cell) -> Cell:
    """Drops what takes nearly all the memory of a cell: a folder may hold any number of them."""
    cell.chromosomes.clear()
    return cell


def _moved(cell: Cell, path: PurePath) -> bool:
    """Whether a cell's image is gone from where it was, and one of its file name is elsewhere."""
    return not cell.path or (
        not os.path.exists(cell.path)  # noqa: PTH110 - a name that is too long is not there
        and PurePath(cell.path).name == path.name
    )


def _agree(folder: OutputFolder, cell: Cell, item: Input, *, write: bool) -> None:
    if not write or (cell.case_id == item.case_id and cell.path == str(item.path)):
        return
    cell.case_id, cell.path = item.case_id, str(item.path)
    # What drawing a karyogram found out about the cell is in its record alone.
    kept: Any = read_json(folder.record(cell.name))
    now = to_record(cell)
    write_json(
        folder.record(cell.name), {**kept, "case": now["case"], "image": now["image"]}, indent=1
    )


def remove_stale(folder: OutputFolder, cases: Sequence[str]) -> int:
    """Removes pictures of no finished cell, and pages of cases that no cell has.

    Args:
        folder: the job's, no cell of which is being drawn.
        cases: file names of the cases, without suffix.

    Returns:
        How many files were removed.
    """
    names = set(folder.names())
    stale = [
        path
        for kind in ("overlays", "karyograms")
        for path in (folder.root / kind).glob("[!.]*.*")
        if path.suffix in (".png", ".svg", ".pdf") and path.stem not in names
    ]
    pages = folder.root / "cases"
    stale += [
        path.with_suffix(suffix)
        for path in pages.glob("[!.]*.json")
        if path.stem not in cases
        for suffix in (".json", ".pdf")
    ]
    stale += [
        path
        for path in (folder.root / "worksheets").glob("[!.]*.*")
        if path.suffix in (".html", ".pdf") and path.stem not in cases
    ]
    stale += [
        path for path in (folder.root / "crops").glob("*/*.png") if path.parent.name not in names
    ]
    for path in stale:
        Path(path).unlink(missing_ok=True)
    if pages.is_dir() and not any(pages.iterdir()):
        pages.rmdir()
    return len(stale)
