"""Text of others: files in some encoding, names that are no valid text."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from deepacc_d2.errors import DataError


def printable(text: object) -> str:
    r"""Returns a text that can be written as UTF-8: bytes of a file name that are not show as \xe9.

    Python keeps such bytes as lone surrogates, which no encoder takes.
    """
    plain = str(text)
    try:
        return plain.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, as JSON may hold
        return plain.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(text: object) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        str(text).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def fold(text: str) -> str:
    """Returns what names have in common that differ in case or in how accents are composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def decoded(data: bytes) -> str:
    """Returns the text of a table as spreadsheets save it: UTF-8, UTF-16, Windows' Western."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, or in UTF-16 with its mark in front.

    Raises:
        DataError: the file is unreadable, or in another encoding.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be read ({error.strerror})") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise DataError(f"{printable(path)} is not in UTF-8: save it as UTF-8") from None
