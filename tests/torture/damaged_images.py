"""Damaged, odd and hostile image files, each with what a reader must make of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from tiny import picture

REFUSED, READ, EITHER = "refused", "read", "either"
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp"}


@dataclass(frozen=True)
class Damaged:
    """A file and what is expected of its reader.

    Attributes:
        kind: of damage.
        suffix: of its name.
        data: its bytes.
        expected: whether it must be refused, must be read, or either.
        gray: what is in it, uint8 (H, W), where it must be read.
    """

    kind: str
    suffix: str
    data: bytes
    expected: str = EITHER
    gray: Any = None


def encode(image: Image.Image, fmt: str, **options: Any) -> bytes:
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def _sound(rng: Random, fmt: str) -> tuple[bytes, np.ndarray]:
    size = (rng.randint(40, 300), rng.randint(40, 260))
    gray = picture(rng.getrandbits(30), size)
    image = Image.fromarray(gray)
    if rng.random() < 0.4:
        image = image.convert("RGB")
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 92}}.get(fmt, {})
    return encode(image, fmt, **options), gray


def _any_format(rng: Random) -> str:
    return rng.choice(sorted(FORMATS))


def truncated(rng: Random) -> Damaged:
    fmt = _any_format(rng)
    data, _ = _sound(rng, fmt)
    # A tail that is only an end mark may be missed by nobody; a tenth of the file is not.
    keep = rng.randint(1, int(len(data) * 0.9))
    return Damaged("truncated", FORMATS[fmt], data[:keep], REFUSED)


def bit_flips(rng: Random) -> Damaged:
    fmt = _any_format(rng)
    data = bytearray(_sound(rng, fmt)[0])
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return Damaged("bit flips", FORMATS[fmt], bytes(data))


def wrong_header(rng: Random) -> Damaged:
    fmt = _any_format(rng)
    data = bytearray(_sound(rng, fmt)[0])
    for at in range(min(rng.choice((2, 8, 30, 60)), len(data))):
        if rng.random() < 0.5:
            data[at] = rng.randrange(256)
    return Damaged("wrong header", FORMATS[fmt], bytes(data))


def bytes_moved(rng: Random) -> Damaged:
    fmt = _any_format(rng)
    data = _sound(rng, fmt)[0]
    at, to = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    choice = rng.choice((data[:at] + data[to:], data[:to] + data[at:], data[to:] + data[:to]))
    return Damaged("bytes lost or doubled", FORMATS[fmt], choice)


def zeros(rng: Random) -> Damaged:
    fmt = _any_format(rng)
    data = bytearray(_sound(rng, fmt)[0])
    at = rng.randrange(len(data))
    # As a disk that lost a block gives it back.
    length = min(rng.choice((16, 512, 4096)), len(data) - at)
    data[at : at + length] = bytes(length)
    return Damaged("a block of zeros", FORMATS[fmt], bytes(data))


def noise(rng: Random) -> Damaged:
    data = rng.randbytes(rng.choice((1, 3, 100, 5000)))
    return Damaged("noise", rng.choice(list(FORMATS.values())), data, REFUSED)


def empty(rng: Random) -> Damaged:
    return Damaged("empty", rng.choice(list(FORMATS.values())), b"", REFUSED)


def text(rng: Random) -> Damaged:
    content = (b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"%PDF-1.4\n")
    return Damaged("text", rng.choice(list(FORMATS.values())), rng.choice(content), REFUSED)


def wrong_extension(rng: Random) -> Damaged:
    fmt = _any_format(rng)
    data, gray = _sound(rng, fmt)
    suffix = rng.choice([s for f, s in FORMATS.items() if f != fmt])
    return Damaged("wrong extension", suffix, data, READ, gray)


def foreign(rng: Random) -> Damaged:
    """A format that is none of ours under a name that is."""
    gray = Image.fromarray(picture(rng.getrandbits(30)))
    fmt = rng.choice(("GIF", "PPM", "ICO", "TGA", "EPS"))
    return Damaged("foreign format", rng.choice(list(FORMATS.values())), encode(gray, fmt), REFUSED)


def exif(rng: Random) -> Damaged:
    gray = picture(rng.getrandbits(30), (rng.randint(50, 200), rng.randint(50, 200)))
    turn = rng.randint(1, 8)
    tags = Image.Exif()
    tags[0x0112] = turn
    fmt = rng.choice(("JPEG", "PNG", "WEBP", "TIFF"))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(fmt, {})
    data = encode(Image.fromarray(gray), fmt, exif=tags, **options)
    shown = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: np.rot90,
    }[turn](gray)
    return Damaged("EXIF orientation", FORMATS[fmt], data, READ, shown)


def broken_exif(rng: Random) -> Damaged:
    gray = Image.fromarray(picture(rng.getrandbits(30)))
    fmt = rng.choice(("JPEG", "PNG", "WEBP"))
    raw = b"Exif\0\0" + rng.choice((b"", b"MM\0*", b"II*\0\xff\xff\xff\xff", rng.randbytes(40)))
    return Damaged("broken EXIF", FORMATS[fmt], encode(gray, fmt, exif=raw))


def odd_depth(rng: Random) -> Damaged:
    gray = picture(rng.getrandbits(30))
    kind = rng.choice(("1", "I;16", "I", "F", "12 bits"))
    if kind == "1":
        image = Image.fromarray(gray).point(lambda v: 255 * (v > 150)).convert("1")
        return Damaged("1 bit", ".png", encode(image, "PNG"), READ, 255 * (gray > 150))
    scale = {"I;16": 257, "I": 65536, "F": 1 / 255, "12 bits": 16}[kind]
    kinds = {"I": np.int32, "F": np.float32}
    deep = (gray.astype(np.float64) * scale).astype(kinds.get(kind, np.uint16))
    return Damaged("deep gray", ".tif", encode(Image.fromarray(deep), "TIFF"), READ, gray)


def color(rng: Random) -> Damaged:
    gray = picture(rng.getrandbits(30))
    kind = rng.choice(("palette", "CMYK", "LA", "RGBA", "YCbCr", "LAB", "P alpha"))
    image = Image.fromarray(gray)
    if kind == "palette":
        data, suffix = encode(image.quantize(64), rng.choice(("PNG", "BMP", "TIFF"))), ".png"
    elif kind == "P alpha":
        data, suffix = encode(image.quantize(64), "PNG", transparency=0), ".png"
        return Damaged(kind, suffix, data)
    elif kind in ("CMYK", "YCbCr"):
        options = {"quality": 95}
        data, suffix = encode(image.convert("RGB").convert(kind), "JPEG", **options), ".jpg"
    elif kind == "LAB":
        data, suffix = encode(Image.merge("LAB", [image, *[image.point(lambda _: 128)] * 2]),
                              "TIFF"), ".tif"  # fmt: skip
        return Damaged(kind, suffix, data)
    else:
        data, suffix = encode(image.convert(kind), rng.choice(("PNG", "TIFF"))), ".png"
    return Damaged(kind, suffix, data, READ, gray)


def pages(rng: Random) -> Damaged:
    gray = [Image.fromarray(picture(rng.getrandbits(30))) for _ in range(rng.randint(2, 5))]
    fmt = rng.choice(("TIFF", "WEBP", "PNG"))
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encode(gray[0], fmt, save_all=True, append_images=gray[1:], **options)
    return Damaged("several pages", FORMATS[fmt], data, READ, np.asarray(gray[0]))


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, bits: int, kind: int, rows: bytes, *more: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            head,
            *more,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def huge_claim(rng: Random) -> Damaged:
    """A few bytes that claim a picture of up to 2^31 pixels a side."""
    side = rng.choice((20_000, 65_535, 2**31 - 1))
    fmt = rng.choice(("PNG", "BMP", "JPEG", "TIFF"))
    if fmt == "PNG":
        data = _png(side, side, 8, rng.choice((0, 2)), b"\0" * 100)
    elif fmt == "BMP":
        data = bytearray(_sound(rng, "BMP")[0])
        data[18:26] = struct.pack("<ii", side, side)
        data = bytes(data)
    elif fmt == "JPEG":
        data = bytearray(_sound(rng, "JPEG")[0])
        at = data.find(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
        data = bytes(data)
    else:
        tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1),
                (262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, side), (279, 4, 1, 10)]  # fmt: skip
        rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4)
    return Damaged("huge claim", FORMATS[fmt], data, REFUSED)


def bomb(rng: Random) -> Damaged:
    """A small file that decompresses to hundreds of megabytes of pixels, or of text."""
    if rng.random() < 0.5:
        side = rng.choice((14_000, 18_000))
        packer = zlib.compressobj(9)
        row = b"\0" * (side + 1)
        packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
        return Damaged("bomb of pixels", ".png", data, REFUSED)
    what = rng.choice((b"zTXt", b"iTXt", b"iCCP"))
    packed = zlib.compress(bytes(100_000_000), 9)
    middle = b"\0\x01\0\0\0" if what == b"iTXt" else b"\0\0"
    extra = chunk(what, b"Comment" + middle + packed)
    return Damaged("bomb of text", ".png", _png(30, 20, 8, 0, b"\0" * 31 * 20, extra))


def thin(rng: Random) -> Damaged:
    size = rng.choice(((1, 1), (1, 500), (500, 1), (2, 2), (65_000, 1), (3, 40_000)))
    data = encode(Image.fromarray(np.full((size[1], size[0]), 200, np.uint8)), "PNG")
    return Damaged("thin", ".png", data)


def flat(rng: Random) -> Damaged:
    gray = np.full((120, 150), rng.choice((0, 128, 255)), np.uint8)
    return Damaged("flat", ".png", encode(Image.fromarray(gray), "PNG"), READ, gray)


def not_finite(rng: Random) -> Damaged:
    values = picture(rng.getrandbits(30)).astype(np.float32)
    values[rng.randrange(100), :] = rng.choice((np.nan, np.inf, -np.inf, 1e38))
    return Damaged("not finite", ".tif", encode(Image.fromarray(values), "TIFF"))


def tiff_tags(rng: Random) -> Damaged:
    """A TIFF with other numbers in its directory: counts, offsets, compressions, depths."""
    data = bytearray(_sound(rng, "TIFF")[0])
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, min(start, len(data) - 2))
    for _ in range(rng.randint(1, 3)):
        at = start + 2 + 12 * rng.randrange(max(1, count)) + rng.choice((0, 2, 4, 8))
        if at + 4 <= len(data):
            value = rng.choice((0, 1, 3, 7, 8, 16, 32, 5, 32773, 50000, 2**31, 2**32 - 1))
            data[at : at + 4] = struct.pack("<I", value)
    return Damaged("TIFF tags", ".tif", bytes(data))


KINDS: tuple[Callable[[Random], Damaged], ...] = (
    *(truncated, bit_flips, wrong_header, bytes_moved, zeros, noise, empty, text),
    *(wrong_extension, foreign, exif, broken_exif, odd_depth, color, pages, huge_claim),
    *(thin, flat, not_finite, tiff_tags, truncated, bit_flips, color, odd_depth),
)
RARE = (bomb,)


def make(number: int, rng: Random) -> Damaged:
    """Returns the file of a number: every kind in turn, the slow ones seldom."""
    return (RARE[0] if number % 50 == 49 else KINDS[number % len(KINDS)])(rng)
