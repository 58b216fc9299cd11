"""Files and directories that appear whole or not at all; JSON whose errors name the file."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.partial import clear_folders, partial_file, partial_folder, resolved, take_place
from deepacc_d2.sole_use import sole_use

# Spreadsheets take a text that begins so for a formula, the wide signs where those are written too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def plain_cell(value: Any) -> Any:
    """Returns a value for a table, with an apostrophe before a text that would be a formula.

    >>> plain_cell("=1+1"), plain_cell("-0.5"), plain_cell(-0.5)
    ("'=1+1", '-0.5', -0.5)
    """
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value  # a number, such as a swept key's


def plain_row(values: Iterable[object]) -> list[object]:
    """Returns a row for a CSV file in which no text is a formula to a spreadsheet."""
    return [plain_cell(value) for value in values]


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns a table as CSV, with no formula in it: the one writer of tables from memory."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(plain_row(header))
    # The writer quotes the line's own end alone, and readers take a bare \r for another.
    for row in rows:
        writer.writerow(v.replace("\r", "\n") if isinstance(v, str) else v for v in plain_row(row))
    return text.getvalue()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    r"""Writes a whole file as UTF-8, line ends as they are.

    What is no character, as of a file name that is no UTF-8, becomes an escape such as ``\udce9``.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Writes a whole JSON file as UTF-8, creating its folder.

    Numbers of NumPy and PyTorch become JSON's; what else JSON has no type for, such as a path, is
    written as a text.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)
    write_text(path, text + "\n")


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def read_json(path: Path, *, unique_keys: bool = False) -> Any:
    """Reads JSON, in UTF-8, UTF-16 or UTF-32.

    Args:
        path: the file.
        unique_keys: refuse an object that has a key twice, of which the last would count.

    Raises:
        DataError: the file is unreadable, cut short or no JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_unique if unique_keys else None)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        if "unexpected end" in error.reason:
            raise DataError(f"{path} ends amid a character: was it cut short?") from None
        raise DataError(f"{path} is not in UTF-8: save it as UTF-8") from None
    except _RepeatedKeyError as error:
        raise DataError(
            f"{path} has the key {error} twice: were two files pasted together?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no complete JSON ({error}): was it cut short?") from None


class _RepeatedKeyError(Exception):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(repr(key) for key in keys if keys.count(key) > 1))
    return found


def check_target(out: Path, src: Path, *, overwrite: bool) -> None:
    """Refuses an OUT that would lose data or cannot be written.

    Raises:
        ConfigError: OUT exists, is not a data set made here, overlaps SRC, or is read-only.
    """
    target, source = resolved(out), resolved(src, "SRC")
    if target == source or target in source.parents or source in target.parents:
        raise ConfigError(f"OUT {out} and SRC {src} overlap: choose an OUT outside the source")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise ConfigError(f"OUT {out} exists: choose another, or add --overwrite to replace it")
        if not (out / "dataset.json").is_file():
            raise ConfigError(
                f"OUT {out} is no converted data set, so --overwrite spares it: choose another"
            )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"cannot write to {out.parent} ({error.strerror}): choose another OUT"
        ) from None


@contextmanager
def whole_directory(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives a temporary directory next to ``out`` that takes its name when the block ends well.

    On any error, Ctrl-C included, the temporary directory is removed and an old ``out`` stays.

    Args:
        out: absolute path; see :func:`check_target`.
        overwrite: replace a directory that is there.

    Raises:
        ConfigError: the disk is full or the place not writable, or another job is at work there.
    """
    with sole_use(out):
        yield from _whole_directory(out, overwrite=overwrite)


def _whole_directory(out: Path, *, overwrite: bool) -> Iterator[Path]:
    temporary: Path | None = None
    try:
        clear_folders(out)
        temporary = partial_folder(out)
        temporary.mkdir(mode=0o755)
        yield temporary
        if overwrite:
            take_place(temporary, out)
        else:
            temporary.rename(out)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise ConfigError(
                f"cannot write {out} ({error.strerror or error}): free some space or choose "
                "another OUT"
            ) from error
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path next to ``path`` that takes its name when the block ends well.

    It has the same suffix, from which many writers see the format. On any error it is removed and
    an old file stays. What a killed process leaves, :func:`deepacc_d2.partial.clear_files` removes.
    """
    temporary = partial_file(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
