"""Any image file to gray levels, uint8 (H, W); what cannot be one is refused in one line.

This is the one reader: training, conversion, checks and prediction see the same gray levels.

Files are judged by their header before a pixel is decoded, so that a small file that claims a huge
picture costs nothing. Plain 8-bit files are then decoded by OpenCV, which is faster and as strict
with damaged ones, all others by Pillow; of plain files both give the same levels.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deepacc_d2.errors import DataError
from deepacc_d2.images.decoder import decode, listening
from deepacc_d2.images.gray import MAX_PIXELS, Gray, eight_bits, luma, shortcomings
from deepacc_d2.images.header import PLAIN_STARTS, Header, plain_header
from deepacc_d2.text import is_utf8, printable

MAX_SIDE = 65_500
# Nothing else is tried: some of Pillow's readers start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp")
"""Of image files that are looked for in folders, in lower case."""
_ORIENTATION = 0x0112
_TURNED, _SIDEWAYS = range(2, 9), range(5, 9)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FileFacts:
    """What a file said of itself.

    Attributes:
        format: ``JPEG``, ``PNG``, ``BMP``, ``TIFF`` or ``WEBP``.
        mode: Pillow's name of the pixel layout, such as ``L``, ``RGB`` or ``I;16``.
        width, height: of the picture as shown, in pixels.
        pages: pictures in the file, of which the first is taken.
        turned: whether its EXIF orientation turned or mirrored it.
        notes: what was done to get gray levels that a user may want to know.
        shortcomings: why bands cannot be seen in it: no contrast, or a handful of gray levels.
    """

    format: str
    mode: str
    width: int
    height: int
    pages: int = 1
    turned: bool = False
    notes: tuple[str, ...] = ()
    shortcomings: tuple[str, ...] = ()


class ReadImage(NamedTuple):
    """Gray levels, uint8 (H, W), and what the file said of itself."""

    gray: Gray
    facts: FileFacts


def read_image(path: str | Path) -> ReadImage:
    """Reads a JPEG, PNG, BMP, TIFF or WebP as it is shown: turned as its EXIF orientation says.

    Boxes are in these pixels, those of annotations as well as those that are found. Color becomes
    luma, what is transparent white; of a file with several pages the first is taken; more than 8
    bits are mapped by the rule of :func:`deepacc_d2.images.gray.as_gray`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = cv2.imwrite(f"{folder}/a.png", np.full((30, 40), 255, np.uint8))
    ...     read = read_image(f"{folder}/a.png")
    >>> read.gray.shape, read.facts.format
    ((30, 40), 'PNG')

    Raises:
        DataError: the file is misnamed, missing, unreadable, empty, truncated, damaged, no image of
            these formats, or larger than :data:`MAX_PIXELS` or :data:`MAX_SIDE`.
    """
    return _open(Path(path), _with_facts)


def read_gray(path: str | Path) -> Gray:
    """Reads the gray levels of :func:`read_image` alone, uint8 (H, W), which takes less time.

    Raises:
        DataError: see :func:`read_image`.
    """
    return _open(Path(path), _gray_of)


def read_size(path: str | Path) -> tuple[int, int]:
    """Returns width and height of an image as shown, in pixels, by its header.

    Raises:
        DataError: the header cannot be read; see :func:`read_image`.
    """
    return _open(Path(path), _size_of)


def _open(path: Path, use: Callable[[FileIO, Path], _Result]) -> _Result:
    """Returns what ``use`` makes of a file that is there and can be read."""
    if not is_utf8(path):
        # no table, record or report could name it
        raise DataError(f"image {printable(path)}: its name is not in UTF-8: rename it")
    try:
        # A pipe or a device would make the reader wait forever.
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{path} is a folder, not an image: name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is no regular file: copy the image into one")
        if not status.st_size:
            raise DataError(f"image {path} is empty (0 bytes): copy it again from its source")
        with path.open("rb", buffering=0) as file:
            return use(file, path)
    except OSError as error:
        raise DataError(
            f"image {path} cannot be read ({error.strerror or error}): check its name and "
            "permissions"
        ) from None
    except ValueError:  # a NUL in the name
        raise DataError(f"{str(path)!r} is no file name: name an image file") from None


def _with_facts(file: FileIO, path: Path) -> ReadImage:
    header, gray = _decode_plain(file, path)
    if header is None or gray is None:
        return _by_pillow(file, path, _decode_any)
    return ReadImage(gray, FileFacts(*header, shortcomings=shortcomings(gray)))


def _gray_of(file: FileIO, path: Path) -> Gray:
    gray = _decode_plain(file, path)[1]
    return _by_pillow(file, path, _decode_any).gray if gray is None else gray


def _size_of(file: FileIO, path: Path) -> tuple[int, int]:
    def shown(image: Image.Image, _: IO[bytes]) -> tuple[int, int]:
        width, height = image.size
        # Of a TIFF, Pillow has them in their places already.
        turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
        return (height, width) if turned else (width, height)

    data = file.read() if file.read(4).startswith(PLAIN_STARTS) and not file.seek(0) else b""
    header = plain_header(data)
    if header is not None:  # as for the pixels: Pillow minds other parts of such a file
        _check_size(path, header.width, header.height)
        return header.width, header.height
    return _by_pillow(file, path, shown)


def _decode_plain(file: FileIO, path: Path) -> tuple[Header | None, Gray | None]:
    """Decodes a plain file by OpenCV.

    Returns:
        Its header, None where it is no plain file; and its gray levels, None where it is damaged:
        Pillow knows how.
    """
    if not file.read(4).startswith(PLAIN_STARTS):
        return None, None
    file.seek(0)
    data = file.read()
    header = plain_header(data)
    if header is None:
        return None, None
    _check_size(path, header.width, header.height)
    buffer = np.frombuffer(data, dtype=np.uint8)
    if header.mode == "RGB" and header.format != "JPEG":
        # Told to give gray, libpng weighs the colors in its own way.
        pixels = decode(buffer, cv2.IMREAD_COLOR_RGB).pixels
        return header, None if pixels is None else luma(pixels)
    # A JPEG is decoded straight to its luma channel, which is a third of the work.
    gray, damage = decode(buffer, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if damage:
        raise _damaged(path, damage)
    return header, gray


def _by_pillow(
    raw: FileIO, path: Path, use: Callable[[Image.Image, IO[bytes]], _Result]
) -> _Result:
    """Returns what ``use`` makes of an image whose header is fine, and of its file."""
    raw.seek(0)
    file = BufferedReader(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=FORMATS)
        except Image.DecompressionBombError:
            raise _too_large(path, "more than 178 million pixels") from None
        except Exception as error:  # damaged headers raise anything in Pillow
            if isinstance(error, Image.UnidentifiedImageError):
                what = "is no JPEG, PNG, BMP, TIFF or WebP image, or its beginning is damaged"
            else:
                what = f"is damaged ({_first_line(error)})"
            raise DataError(f"image {path} {what}: convert or copy it again") from None
        with image:
            _check_size(path, *image.size)
            try:
                with listening():
                    return use(image, file)
            except Exception as error:  # damaged data raise anything in Pillow
                raise _damaged(path, _first_line(error)) from None


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"image {path} is truncated or damaged ({why}): copy it again from its source")


def _check_size(path: Path, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DataError(f"image {path} is {width}x{height} pixels: leave it out")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise _too_large(path, f"{width}x{height} pixels")


def _too_large(path: Path, size: str) -> DataError:
    return DataError(
        f"image {path} claims {size}, over the limit of {MAX_PIXELS // 10**6} million and "
        f"{MAX_SIDE} a side: crop or shrink it"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:120]


def _decode_any(image: Image.Image, file: IO[bytes]) -> ReadImage:
    """Decodes the first page of any image by Pillow."""
    file_format = {"MPO": "JPEG"}.get(image.format or "", image.format or "")
    mode, pages, notes = image.mode, int(getattr(image, "n_frames", 1)), []
    if pages > 1 and file_format != "JPEG":  # further frames of a JPEG are previews
        notes.append(f"the first of {pages} pages")
    # Both are asked first: loading takes the marks away.
    if file_format == "JPEG" and (damage := _jpeg_damage(file)):
        raise ValueError(damage)
    deep_color = mode in ("RGB", "RGBA") and ";16" in _raw_mode(image)
    turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
    image.draft("L", None)  # of a JPEG: its luma alone
    image.load()
    shown = ImageOps.exif_transpose(image)
    if turned:
        notes.append("turned as its EXIF orientation says")
    pixels: NDArray[Any] | None = None
    if deep_color and not turned:
        # Pillow keeps the upper 8 bits only, of which a 12-bit camera uses four.
        pixels = _decode_deep(file)
    gray = eight_bits(luma(pixels) if pixels is not None else _layers(shown, notes), notes)
    # Pillow lends its pixels; torch wants those that may be written to.
    gray = np.require(gray, requirements=["C", "W"])
    height, width = gray.shape
    facts = FileFacts(
        file_format, mode, width, height, pages, turned, tuple(notes), shortcomings(gray)
    )
    return ReadImage(gray, facts)


def _jpeg_damage(file: IO[bytes]) -> str:
    """Returns what libjpeg says is wrong with a JPEG, which Pillow keeps to itself."""
    at = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(at)
    return decode(data, cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_IGNORE_ORIENTATION).damage


def _raw_mode(image: Image.Image) -> str:
    """Returns how Pillow's decoder will unpack the pixels."""
    tiles = getattr(image, "tile", [])
    args: Any = tiles[0][3] if tiles else ""
    return str(args if isinstance(args, str) else next(iter(args or ()), ""))


def _decode_deep(file: IO[bytes]) -> NDArray[Any] | None:
    """Decodes 16-bit color to RGB or RGBA, None where OpenCV cannot."""
    file.seek(0)
    data = np.frombuffer(file.read(), dtype=np.uint8)
    pixels = decode(data, cv2.IMREAD_UNCHANGED).pixels
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
        colored = np.asarray(image.convert("RGBA"))
        if not colored[..., 3].any():
            # Some microscopes' software writes a fourth channel that means nothing.
            notes.append("its alpha channel is empty and was ignored")
        return luma(colored)
    return luma(np.asarray(image.convert("RGB")))
