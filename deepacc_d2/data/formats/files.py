"""The files of a source, and which of them a name means that an annotation tool wrote."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from deepacc_d2.errors import DataError
from deepacc_d2.images.read import SUFFIXES
from deepacc_d2.text import fold, printable


class AmbiguousNameError(DataError):
    """A name that fits several files.

    Attributes:
        paths: of them.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(several(paths))
        self.paths = tuple(paths)


def relative_name(path: Path, src: Path) -> str:
    """Returns the path relative to the source with forward slashes, or the name if outside it."""
    try:
        return path.relative_to(src).as_posix()
    except ValueError:
        return path.name


def image_files(folder: Path) -> list[Path]:
    """Returns all image files under a folder, sorted by path, without hidden ones."""
    return files_under(folder, *SUFFIXES)


def files_under(folder: Path, *suffixes: str) -> list[Path]:
    """Returns the files under a folder with one of these suffixes in either case, sorted by path.

    Links to folders are entered, each folder once. Hidden files and folders do not count:
    ``._name.jpg`` and ``__MACOSX`` come with archives that were packed on a Mac, and hold no image.

    Raises:
        DataError: a folder cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    waiting, links = [folder], list[Path]()
    while waiting or links:
        # links last: what is in the source itself goes by its own name
        current = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            if current == folder and not folder.exists():
                return []
            raise DataError(
                f"folder {printable(current)} cannot be read ({error.strerror}): permit it or "
                "take it out of the source"
            ) from None
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            path = current / entry.name
            if os.path.isdir(path):  # noqa: PTH112 - entry.is_dir raises on a link to itself
                (links if entry.is_symlink() else waiting).append(path)
            elif entry.name.lower().endswith(suffixes) and is_file(path):
                found.append(path)
    return sorted(found)


def is_file(path: Path) -> bool:
    """Whether a path is a file; one that cannot be, such as a name that is too long, is none."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises where this says no


class FileIndex:
    """Finds files by names that others gave them: quoted for the web, in another case, moved.

    Args:
        paths: the files.
        root: folder that holds them.
    """

    def __init__(self, paths: Iterable[Path], root: Path) -> None:
        self.root = root
        self._by_path: dict[str, list[Path]] = {}
        self._by_name: dict[str, list[Path]] = {}
        self._by_folder: dict[Path, list[Path]] = {}
        for path in paths:
            self._by_path.setdefault(fold(relative_name(path, root)), []).append(path)
            self._by_name.setdefault(fold(path.name), []).append(path)
            self._by_folder.setdefault(path.parent, []).append(path)

    def in_folder(self, folder: Path) -> list[Path]:
        """Returns the files directly in a folder."""
        return self._by_folder.get(folder, [])

    def find(self, name: str, folders: Sequence[Path], taken: Collection[Path] = ()) -> Path | None:
        """Returns the file that a name means, None if there is none.

        The name as it is, in the first of the folders that has it; else without ``%20`` and the
        like; else whatever its case and composition of accents; else wherever its last part is.

        Args:
            name: as a tool wrote it.
            folders: that it may be relative to.
            taken: resolved paths that others mean for certain: none of these by its last part.

        Raises:
            AmbiguousNameError: several files fit equally well.
        """
        found = self.find_in(name, folders)
        if found is not None:
            return found
        for text in _readings(name):
            hits = self._by_name.get(fold(text.rsplit("/", 1)[-1]), [])
            hits = [path for path in hits if path.resolve() not in taken]
            if hits:
                tail = "/" + fold(text).lstrip("/")
                near = [p for p in hits if fold(p.as_posix()).endswith(tail)]
                return _only(near or hits, text)
        return None

    def find_in(self, name: str, folders: Sequence[Path]) -> Path | None:
        """Returns the file of a name in one of these folders, as :meth:`find` does first.

        Raises:
            AmbiguousNameError: several files fit equally well.
        """
        names = _readings(name)
        for text in names:
            for folder in folders:
                if is_file(folder / text):
                    return folder / text
        for text in names:
            for folder in folders:
                hits = self._by_path.get(fold(relative_name(folder / text, self.root)), [])
                if hits:
                    return _only(hits, text)
        return None


def _readings(name: str) -> list[str]:
    """Returns a name with forward slashes, as it is and as the web quotes it."""
    plain = name.replace("\\", "/")
    if "?d=" in plain:  # Label Studio's local files
        plain = plain.rsplit("?d=", 1)[1]
    return list(dict.fromkeys([plain, unquote(plain)]))


def _only(hits: Sequence[Path], name: str) -> Path:
    """Returns the one file, or the one of exactly this name among several.

    Raises:
        AmbiguousNameError: there are several.
    """
    different = list({os.path.realpath(path): path for path in reversed(hits)}.values())
    exact = [path for path in different if path.name == name.rsplit("/", 1)[-1]]
    for choice in (different, exact):
        if len(choice) == 1:
            return choice[0]
    raise AmbiguousNameError(different)


def several(paths: Sequence[Path]) -> str:
    """Returns what is said of a name that fits several files."""
    first, second = sorted(path.as_posix() for path in paths)[:2]
    more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    return printable(f"fits {first} and {second}{more}: rename or remove all but one")
