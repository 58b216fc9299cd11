"""Does an image file decode, and completely? With its size, hash and gray statistics."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from deepacc_d2.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the conversion needs of an image.

    Attributes:
        width: px.
        height: px.
        sha256: of the file's bytes, hexadecimal.
        pixels: SHA-256 of the gray values, hexadecimal: the same in whatever format they are kept.
        total: sum of the gray values (0..255) over all pixels.
        total_squared: sum of their squares.
    """

    width: int
    height: int
    sha256: str
    pixels: str
    total: int
    total_squared: int


def inspect_image(path: Path) -> ImageFacts:
    """Decodes an image as the training does (OpenCV, 8-bit gray) and describes it.

    OpenCV fills what a truncated JPEG or PNG lacks with gray and reports nothing, so Pillow, which
    refuses such a file, decodes it as well.

    Raises:
        DataError: the file is unreadable, empty, truncated or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from None
    if not data:
        raise DataError("is empty (0 bytes)")
    gray = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if gray is None:
        raise DataError("is not a decodable image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"is truncated or damaged ({error})") from None
    histogram = np.bincount(gray.ravel(), minlength=256)
    levels = np.arange(256)
    return ImageFacts(
        width=int(gray.shape[1]),
        height=int(gray.shape[0]),
        sha256=hashlib.sha256(data).hexdigest(),
        pixels=hashlib.sha256(repr(gray.shape).encode() + gray.tobytes()).hexdigest(),
        total=int(histogram @ levels),
        total_squared=int(histogram @ levels**2),
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
