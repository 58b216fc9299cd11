"""Which files any decoder reads to the same gray levels: plain 8-bit JPEG, PNG and WebP.

Their headers are short and fixed, so a few bytes are enough; Pillow takes longer to open a
file than OpenCV to decode a small one. What is not certain here is no plain file, and is left to
Pillow: alpha, palettes, more bits, several frames, and whatever may hold an EXIF orientation.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

PLAIN_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
"""First bytes of the files that may be plain ones."""
_PNG_START = b"\x89PNG\r\n\x1a\n"
# Chunks that change no gray level. Texts may hold an orientation, by these keywords.
_PNG_CHUNKS = frozenset(
    b"IHDR IDAT IEND gAMA cHRM sRGB iCCP pHYs tIME bKGD sBIT hIST tEXt zTXt iTXt".split()
)
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_KEYWORDS = (b"Raw profile", b"XML:", b"exif", b"xmp")
_PNG_MODES = {0: "L", 2: "RGB"}
# Baseline, extended and progressive Huffman coding.
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
_JPEG_MODES = {1: "L", 3: "RGB"}
_EXIF, _PAGES = 0xE1, b"MPF\0"


class Header(NamedTuple):
    """What a plain file says of itself; ``mode`` is Pillow's ``L`` or ``RGB``, sizes in pixels."""

    format: str
    mode: str
    width: int
    height: int


def plain_header(data: bytes) -> Header | None:
    """Returns the header of a plain file by all its bytes; None where it is none, or damaged."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data)
        if data.startswith(_PNG_START):
            return _png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        pass  # cut short: Pillow says how
    return None


def _jpeg(data: bytes) -> Header | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xDA or marker == _EXIF:
            return None
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _JPEG_FRAMES:
            bits, height, width, layers = struct.unpack_from(">BHHB", data, at + 4)
            plain = bits == 8 and layers in _JPEG_MODES
            return Header("JPEG", _JPEG_MODES[layers], width, height) if plain else None
        if marker == 0xE2 and data[at + 4 : at + 8] == _PAGES:
            return None
        at += 2 + length
    return None


def _png(data: bytes) -> Header | None:
    width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
    if color not in _PNG_MODES or bits > 8:
        return None
    at, kind = len(_PNG_START), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in _PNG_CHUNKS:
            return None
        if kind in _PNG_TEXTS and data[at + 8 : at + 24].startswith(_PNG_KEYWORDS):
            return None
        at += 12 + length
    # Of one that is cut short, libpng would complain on standard error.
    mode = "1" if bits == 1 else _PNG_MODES[color]
    return Header("PNG", mode, width, height) if at <= len(data) else None


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WEBP", "RGB", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        alpha = bits >> 28 & 1
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        return None if alpha else Header("WEBP", "RGB", width, height)
    return None
