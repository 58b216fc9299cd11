"""Does an image file decode, and to what? With its size, hash and gray statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_image


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the conversion needs of an image.

    Attributes:
        width, height: px, as shown.
        sha256: of the file's bytes, hexadecimal.
        pixels: SHA-256 of the gray values, hexadecimal: the same in whatever format they are kept.
        total: sum of the gray values (0..255) over all pixels.
        total_squared: sum of their squares.
        turned: whether its EXIF orientation turned or mirrored it.
        shortcomings: why bands cannot be seen in it, in a line each.
    """

    width: int
    height: int
    sha256: str
    pixels: str
    total: int
    total_squared: int
    turned: bool = False
    shortcomings: tuple[str, ...] = ()


def inspect_image(path: Path) -> ImageFacts:
    """Reads an image as training and prediction do and describes it.

    Raises:
        DataError: see :func:`deepacc_d2.images.read.read_image`.
    """
    gray, facts = read_image(path)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"image {path} cannot be read ({error.strerror}): restore it") from None
    histogram = np.bincount(gray.ravel(), minlength=256)
    levels = np.arange(256)
    return ImageFacts(
        width=facts.width,
        height=facts.height,
        sha256=sha256,
        pixels=hashlib.sha256(repr(gray.shape).encode() + gray.tobytes()).hexdigest(),
        total=int(histogram @ levels),
        total_squared=int(histogram @ levels**2),
        turned=facts.turned,
        shortcomings=facts.shortcomings,
    )


def gray_statistics(images: Iterable[ImageFacts]) -> tuple[float, float]:
    """Returns mean and standard deviation (0..255) over all pixels of all the images.

    Raises:
        DataError: no image.
    """
    count = total = squared = 0
    for facts in images:
        count += facts.width * facts.height
        total += facts.total
        squared += facts.total_squared
    if count == 0:
        raise DataError("no image to take gray statistics of: the train split is empty")
    mean = total / count
    return mean, float(np.sqrt(max(squared / count - mean**2, 0.0)))
