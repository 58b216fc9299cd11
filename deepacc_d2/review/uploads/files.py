"""Where uploaded images are kept, and which are refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from deepacc_d2.errors import DataError
from deepacc_d2.images.read import SUFFIXES, read_image
from deepacc_d2.prediction.names import safe_name
from deepacc_d2.review.store.database import StoreError

MOST_BYTES = 200_000_000
"""Largest file that is taken."""
_SPARE_BYTES = 200_000_000
"""Free space that an upload must leave for results and the store."""


class RefusedError(DataError):
    """A file that is not taken."""


class TooLargeError(RefusedError):
    """A file over the limit."""


@dataclass(frozen=True)
class Received:
    """An image that was taken.

    Attributes:
        path: where it is.
        name: of its cell.
        sha256: of its bytes.
        size: in bytes.
        known: whether an image of this name and content was there already.
    """

    path: Path
    name: str
    sha256: str
    size: int
    known: bool = False


def folder_of(root: Path) -> Path:
    """Returns where the images uploaded to a folder of results are kept."""
    return root / "review" / "images"


def check_name(file: str) -> tuple[str, str]:
    """Returns the cell name and suffix that a file's name gives.

    Args:
        file: name as the browser gave it, with or without folders of any system.

    Raises:
        RefusedError: it is not that of an image.
    """
    name = PureWindowsPath(file).name  # takes / and \\ for separators
    suffix = PureWindowsPath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise RefusedError(
            f"{name[:80] or 'the file'} is not an image: give {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}"
        )
    return safe_name(PureWindowsPath(name).stem), suffix


def begin(root: Path, size: int) -> Path:
    """Returns a new temporary file for an upload.

    Args:
        root: folder of the results.
        size: bytes that are to come.

    Raises:
        TooLargeError: they are too many.
        StoreError: the folder cannot be written, or its disk has no room.
    """
    if size > MOST_BYTES:
        raise TooLargeError(f"the file has over {MOST_BYTES // 10**6} MB: crop or shrink the image")
    folder = folder_of(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror}): permit it") from None
    if free < size + _SPARE_BYTES:
        raise StoreError(f"{folder}: no space left on the disk: free some and try again")
    return folder / f".{os.urandom(8).hex()}.part"


def receive(part: Path, file: str, taken: Collection[str]) -> Received:
    """Checks an uploaded file and gives it its name.

    Args:
        part: the temporary file, which is gone afterwards.
        file: name as the browser gave it.
        taken: lower-case names that cells or other images have.

    Raises:
        RefusedError: it is not an image that can be predicted.
        StoreError: it cannot be kept.
    """
    try:
        stem, suffix = check_name(file)
        shown = PureWindowsPath(file).name
        try:
            read_image(part)
        except DataError as error:
            text = str(error).replace(f"image {part}", shown).replace(str(part), shown)
            raise RefusedError(text) from None
        with part.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        size = part.stat().st_size
        name, number = stem, 1
        while name.casefold() in taken:
            own = part.parent / f"{name}{suffix}"
            if own.is_file() and _sha256(own) == digest:
                return Received(own, name, digest, size, known=True)
            number += 1
            name = f"{stem[:90]}_{number}"
        path = part.parent / f"{name}{suffix}"
        part.replace(path)
    except OSError as error:
        raise StoreError(f"{part.parent} cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)
    return Received(path, name, digest, size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
