"""Which images to look at: files, folders and patterns, each with a name and a case.

Folders are listed without asking the file system about each file, so that a hundred thousand of
them are listed in seconds.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.read import SUFFIXES
from deepacc_d2.prediction.cases import case_ids
from deepacc_d2.prediction.exports import exported_karyograms, skipped_line
from deepacc_d2.prediction.names import unique_names

Images = str | Path | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class Input:
    """An image to look at.

    Attributes:
        path: as given, or as found in the folder given.
        name: unique in the list, fit for a file name; the file's stem where that will do.
        case_id: of the patient or culture, None if not known.
    """

    path: Path
    name: str
    case_id: str | None = None


def list_images(
    images: Images,
    cases: str | Path | None = None,
    *,
    out: str | Path | None = None,
    skipped: dict[Path, str] | None = None,
) -> list[Input]:
    """Lists images in an order that does not depend on the file system.

    Args:
        images: a file, a folder, a pattern such as ``slides/**/*.tif``, or several of them. A
            folder is searched with all below it, for the usual suffixes of images in either
            case; hidden files and folders are passed over, links to folders not followed. A file
            that is named is taken whatever its suffix. Numbers in names sort by value.
        cases: None; ``folder``: the folder that an image is in is its case; or a CSV file, see
            :func:`deepacc_d2.prediction.cases.case_ids`.
        out: a folder that is passed over: what a job writes is not its input.
        skipped: is given each picture that is left out, and why: karyograms next to
            their metaphases. A file that is named by itself is never left out.

    Raises:
        ConfigError: nothing is named, or nothing there is an image.
        DataError: a folder cannot be read, or the cases cannot be told.
    """
    several = [images] if isinstance(images, str | Path) else list(images)
    if not several:
        raise ConfigError("no image is named: give a file, a folder or a pattern")
    spared = os.path.realpath(out) if out is not None else None
    found: dict[str, Path] = {}
    by_itself: set[str] = set()
    for item in several:
        for path in _sorted(_expand(item, spared)):
            # A file that two patterns name is looked at once.
            key = os.path.abspath(path)  # noqa: PTH100 - follows no links
            found.setdefault(key, path)
            if str(path) == str(item):
                by_itself.add(key)
    left_out = {
        karyogram: skipped_line(karyogram, metaphase)
        for karyogram, metaphase in exported_karyograms(list(found.values())).items()
    }
    paths = [p for key, p in found.items() if key in by_itself or p not in left_out]
    if skipped is not None:
        skipped |= {p: line for p, line in left_out.items() if p not in paths}
    return [
        Input(path, name, case)
        for path, name, case in zip(paths, unique_names(paths), case_ids(paths, cases), strict=True)
    ]


def _expand(item: str | Path, spared: str | None) -> list[Path]:
    """Returns the images that one argument names, in any order.

    Raises:
        ConfigError: there are none.
        DataError: a folder cannot be read.
    """
    text = os.path.expanduser(str(item)) if str(item).startswith("~") else str(item)  # noqa: PTH111
    if not text.strip() or "\0" in text:
        raise ConfigError(f"{text!r} names no image: give a file, a folder or a pattern")
    path = Path(text)
    # Looked for first, since a file's name may hold the marks of a pattern.
    if _exists(path):
        if not path.is_dir():
            return [path]
        files = list(_walk(path, spared))
        if not files:
            raise ConfigError(f"no image in folder {text}: it needs {_suffix_list()} files")
        return files
    if not glob.has_magic(text):
        raise ConfigError(f"{text} is not there: name an image, a folder or a pattern")
    matches = [Path(match) for match in glob.glob(text, recursive=True)]  # noqa: PTH207
    files = []
    for match in matches:
        if match.suffix.lower() in SUFFIXES:
            if not (spared and _is_below(match, spared)):
                files.append(match)
        elif match.is_dir() and "**" not in text:  # or all below it would be listed twice
            files.extend(_walk(match, spared))
    if not files:
        what = "only what is no image" if matches else "nothing"
        raise ConfigError(f"pattern {text} matches {what}: it needs {_suffix_list()} files")
    return files


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # such as a name that is too long
        raise ConfigError(
            f"{path} cannot be looked at ({error.strerror}): name an image, a folder or a pattern"
        ) from None


def _suffix_list() -> str:
    return ", ".join(SUFFIXES[:-1]) + " or " + SUFFIXES[-1]


def _is_below(path: Path, folder: str) -> bool:
    real = os.path.realpath(path)
    return real == folder or real.startswith(folder + os.sep)


def _walk(folder: Path, spared: str | None) -> Iterator[Path]:
    """Yields the images in a folder and below it, in the file system's order.

    Raises:
        DataError: a folder cannot be read.
    """
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if spared is not None and os.path.realpath(current) == spared:
            continue
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(current / entry.name)
                    elif entry.name.lower().endswith(SUFFIXES) and not entry.is_dir():
                        yield current / entry.name
        except OSError as error:
            raise DataError(
                f"folder {current} cannot be read ({error.strerror or error}): permit it or name "
                "the images next to it"
            ) from None


def _sorted(paths: list[Path]) -> list[Path]:
    """Returns the paths by name, cell 2 before cell 10."""

    def key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
        pieces = re.split(r"([0-9]+)", path.as_posix().casefold())
        # 0 sorts digits before letters and keeps numbers from being compared with text.
        parts = [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces]
        return parts, path.as_posix()

    return sorted(paths, key=key)
