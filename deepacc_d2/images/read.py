"""Any image file or array to gray levels, uint8 (H, W); what cannot be one is refused in one line.

Files are judged by their header before a pixel is decoded, so that a small file that claims a huge
picture costs nothing. A JPEG is decoded straight to its luma channel, as training does, so that
both see the same gray levels.
"""

from __future__ import annotations

import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.text import is_utf8, printable

Gray = NDArray[np.uint8]

# Pillow refuses more than 178.9 million pixels by itself, whatever is asked of it.
MAX_PIXELS = 175_000_000
MAX_SIDE = 65_500
# Nothing else is tried: some of Pillow's readers start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
# More than 8 bits: the range that is mapped to 0..255, in percentiles of the pixels, and the share
# of it that is added on both sides. The darkest bands are a thousandth of a picture; hot pixels
# and saturated ones, far fewer, are clipped.
RANGE_PERCENTILES = (0.02, 99.98)
RANGE_MARGIN = 0.05
# A picture that uses at least this share of its bit depth keeps its levels in proportion.
LEAST_USED = 0.25
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class FileFacts:
    """What a file said of itself.

    Attributes:
        format: ``JPEG``, ``PNG``, ``BMP`` or ``TIFF``.
        mode: Pillow's name of the pixel layout, such as ``L``, ``RGB`` or ``I;16``.
        width, height: of the picture as shown, in pixels.
        pages: pictures in the file, of which the first is taken.
        notes: what was done to get gray levels that a user may want to know.
    """

    format: str
    mode: str
    width: int
    height: int
    pages: int = 1
    notes: tuple[str, ...] = ()


class ReadImage(NamedTuple):
    """Gray levels, uint8 (H, W), and what the file said of itself."""

    gray: Gray
    facts: FileFacts


def read_image(path: str | Path) -> ReadImage:
    """Reads a JPEG, PNG, BMP or TIFF as it is shown: turned as its EXIF orientation says.

    Boxes found on it are in these pixels. Colour becomes luma, what is transparent white; of a
    file with several pages the first is taken; more than 8 bits are mapped by :func:`as_gray`'s
    rule.

    Raises:
        DataError: the file is misnamed, missing, unreadable, empty, truncated, damaged, no image of
            these formats, or larger than :data:`MAX_PIXELS` or :data:`MAX_SIDE`.
    """
    path = Path(path)
    if not is_utf8(path):
        # no table, record or report could name it
        raise DataError(f"image {printable(path)}: its name is not in UTF-8: rename it")
    try:
        # A pipe or a device would make the reader wait for ever.
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{path} is a folder, not an image: name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is no regular file: copy the image into one")
        if not status.st_size:
            raise DataError(f"image {path} is empty (0 bytes): copy it again from its source")
        with path.open("rb") as file:
            return _read_open(file, path)
    except OSError as error:
        raise DataError(
            f"image {path} cannot be read ({error.strerror or error}): check its name and "
            "permissions"
        ) from None
    except ValueError:  # a NUL in the name
        raise DataError(f"{str(path)!r} is no file name: name an image file") from None


def _read_open(file: IO[bytes], path: Path) -> ReadImage:
    """Reads an open file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError:
            raise _too_large(path, "more than 178 million pixels") from None
        except Exception as error:  # damaged headers raise anything in Pillow
            if isinstance(error, Image.UnidentifiedImageError):
                what = "is no JPEG, PNG, BMP or TIFF image, or its beginning is damaged"
            else:
                what = f"is damaged ({_first_line(error)})"
            raise DataError(f"image {path} {what}: convert or copy it again") from None
        with image:
            width, height = image.size
            if width < 1 or height < 1:
                raise DataError(f"image {path} is {width}x{height} pixels: leave it out")
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise _too_large(path, f"{width}x{height} pixels")
            try:
                return _decode(image, file)
            except Exception as error:  # damaged data raise anything in Pillow
                raise DataError(
                    f"image {path} is truncated or damaged ({_first_line(error)}): copy it again "
                    "from its source"
                ) from None


def _too_large(path: Path, size: str) -> DataError:
    return DataError(
        f"image {path} claims {size}, over the limit of {MAX_PIXELS // 10**6} million and "
        f"{MAX_SIDE} a side: crop or shrink it"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:120]


def _decode(image: Image.Image, file: IO[bytes]) -> ReadImage:
    """Decodes the first page of an image whose header is fine."""
    file_format = {"MPO": "JPEG"}.get(image.format or "", image.format or "")
    mode, pages, notes = image.mode, int(getattr(image, "n_frames", 1)), []
    if pages > 1 and file_format != "JPEG":  # further frames of a JPEG are previews
        notes.append(f"the first of {pages} pages")
    deep_colour = mode in ("RGB", "RGBA") and _raw_mode(image).find(";16") >= 0
    # Loading a TIFF turns it and takes the mark away.
    turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    image.draft("L", None)  # of a JPEG: its luma alone
    image.load()
    shown = ImageOps.exif_transpose(image)
    if turned:
        notes.append("turned as its EXIF orientation says")
    pixels: NDArray[Any] | None = None
    if deep_colour and not turned:
        # Pillow keeps the upper 8 bits only, of which a 12-bit camera uses four.
        pixels = _decode_deep(file)
    gray = _eight_bits(_luma(pixels) if pixels is not None else _layers(shown, notes), notes)
    height, width = gray.shape
    return ReadImage(gray, FileFacts(file_format, mode, width, height, pages, tuple(notes)))


def _raw_mode(image: Image.Image) -> str:
    """Returns how Pillow's decoder will unpack the pixels."""
    tiles = getattr(image, "tile", [])
    args: Any = tiles[0][3] if tiles else ""
    return str(args if isinstance(args, str) else next(iter(args or ()), ""))


def _decode_deep(file: IO[bytes]) -> NDArray[Any] | None:
    """Decodes 16-bit colour to RGB or RGBA, None where OpenCV cannot."""
    file.seek(0)
    data = np.frombuffer(file.read(), dtype=np.uint8)
    pixels: NDArray[Any] | None = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[-1] not in (3, 4):
        return None
    return pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]]


def _layers(image: Image.Image, notes: list[str]) -> NDArray[Any]:
    """Returns the gray levels (H, W) of a decoded image in the depth that it has."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        coloured = image.convert("RGBA")
        if coloured.getchannel("A").getextrema() == (0, 0):
            # Some microscopes' software writes a fourth channel that means nothing.
            notes.append("its alpha channel is empty and was ignored")
            return np.asarray(coloured.convert("RGB").convert("L"))
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, coloured).convert("L"))
    return np.asarray(image.convert("RGB").convert("L"))


def as_gray(array: ArrayLike) -> Gray:
    """Returns an array as gray levels, uint8 (H, W); one that is so already comes back itself.

    Accepted are (H, W), (H, W, 1), RGB (H, W, 3) and RGBA (H, W, 4; alpha over white), of bool,
    of integers, and of floats in 0..1 or 0..255. 8 bits are kept as they are. Deeper pictures keep
    their levels in proportion where they use a quarter of their depth (the least number of bits
    that holds their largest value) or more; others, such as 12-bit pictures of low contrast, are
    stretched so that nearly all pixels fall inside 0..255, bands included. So are floats of any
    other range.

    Raises:
        ConfigError: another shape or type, no pixel, too many of them, or values not finite.
    """
    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] not in (3, 4)):
        raise ConfigError(
            f"an array of shape {pixels.shape} is no image: give (H, W), (H, W, 1), (H, W, 3) or "
            "(H, W, 4)"
        )
    if pixels.dtype.kind not in "buif":
        raise ConfigError(
            f"an array of {pixels.dtype} is no image: give uint8, uint16 or floats in 0..1"
        )
    if 0 in pixels.shape or pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise ConfigError(
            f"an image of {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be used: give 1 to "
            f"{MAX_PIXELS // 10**6} million pixels"
        )
    if pixels.dtype.kind == "f" and not (np.abs(pixels.astype(np.float64)) < 1e30).all():
        raise ConfigError("an image has values that are no finite number: replace them")
    return _eight_bits(pixels if pixels.ndim == 2 else _luma(pixels), [])


def _luma(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns (H, W) of RGB or RGBA in the same depth, by the weights of ITU-R BT.601."""
    top = _top(pixels)
    colour = cv2.cvtColor(_plain(pixels[..., :3]), cv2.COLOR_RGB2GRAY)
    if pixels.shape[2] == 3 or not pixels[..., 3].any():
        return colour
    alpha = pixels[..., 3].astype(np.float32) / np.float32(top)
    mixed = colour * alpha + np.float32(top) * (1 - alpha)
    return mixed if pixels.dtype.kind == "f" else np.rint(mixed).astype(colour.dtype)


def _plain(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns the pixels in the nearest type that OpenCV converts."""
    kept = pixels.dtype in (np.uint8, np.uint16)
    return np.ascontiguousarray(pixels if kept else pixels.astype(np.float32))


def _top(pixels: NDArray[Any]) -> float:
    """Returns the value of white: of the type, or of the least number of bits that holds all."""
    if pixels.dtype.kind == "b" or pixels.dtype == np.uint8:
        return 1.0 if pixels.dtype.kind == "b" else 255.0
    highest = float(pixels.max())
    if highest <= 1 and pixels.dtype.kind == "f":
        return 1.0
    return float(2 ** max(8, int(np.ceil(np.log2(max(highest, 1) + 1)))) - 1)


def _eight_bits(plane: NDArray[Any], notes: list[str]) -> Gray:
    """Maps gray levels (H, W) of any depth to uint8 by the rule of :func:`as_gray`.

    Raises:
        ValueError: values that are not finite.
    """
    if plane.dtype == np.uint8:
        return plane
    if plane.dtype.kind == "b":
        return plane.astype(np.uint8) * np.uint8(255)
    kind = np.float64 if plane.dtype.itemsize > 4 else np.float32
    values: NDArray[np.floating[Any]] = plane.astype(kind)
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite(lowest) or not np.isfinite(highest):
        raise ValueError("values that are not finite")
    top = _top(plane)
    low, high = 0.0, top
    if top != 255 or lowest < 0:
        used = np.percentile(values, RANGE_PERCENTILES)
        if used[1] <= used[0]:
            used = np.array([lowest, highest])
        if lowest < 0 or used[1] - used[0] < LEAST_USED * top:
            margin = RANGE_MARGIN * (used[1] - used[0])
            low, high = float(used[0] - margin), float(used[1] + margin)
            notes.append(f"values {used[0]:.5g} to {used[1]:.5g} mapped to 8 bits")
    levels = (values - low) * (255.0 / max(high - low, 1e-12))
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
