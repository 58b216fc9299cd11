"""What a laboratory tells of its cases and cells in CSV files: no patient's data."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from pathlib import Path

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.text import decoded

HEADER_FIELDS = (
    *("sample", "tissue", "culture", "stain", "band_level", "date"),
    *("first_signature", "second_signature"),
)
"""Columns of a table of cases, besides ``case``."""

CELL_FIELDS = ("slide", "coordinates", "x", "y", "level", "reviewer")
"""Columns of a table of cells, besides ``file``."""

LEVELS = ("counted", "analyzed", "karyotyped")
"""What was done with a cell, each more than the one before."""

_LONGEST = 300


def read_headers(path: str | Path) -> dict[str, dict[str, str]]:
    """Reads what the heads of worksheets say: a row for each case.

    Args:
        path: of a CSV file with a column ``case`` and any of :data:`HEADER_FIELDS`.

    Returns:
        The fields by case; those that are empty are left out.

    Raises:
        ConfigError: there is no such file.
        DataError: it is no such table, has a column of another name, or a case twice.
    """
    return {key: row for key, (row, _) in _read(Path(path), "case", HEADER_FIELDS).items()}


def read_cells(path: str | Path) -> dict[str, dict[str, str]]:
    """Reads where cells are on their slides, and who did what with them.

    Args:
        path: of a CSV file with a column ``file`` (a file's name or stem) and any of
            :data:`CELL_FIELDS`; ``level`` is one of :data:`LEVELS`.

    Returns:
        The fields by a file's stem; those that are empty are left out, and ``x`` and ``y`` become
        ``coordinates``.

    Raises:
        ConfigError: there is no such file.
        DataError: it is no such table, has a column of another name, a file twice or another level.
    """
    table = Path(path)
    found = {}
    for file, (row, line) in _read(table, "file", CELL_FIELDS).items():
        stem = Path(file.replace("\\", "/")).stem if "." in file else file
        if stem in found:
            raise DataError(f"{table}, line {line}: {file} is there twice: keep one row")
        if row.get("level", LEVELS[0]) not in LEVELS:
            raise DataError(
                f"{table}, line {line}: level {row['level'][:40]!r} is none of {', '.join(LEVELS)}"
            )
        x, y = row.pop("x", ""), row.pop("y", "")
        if (x or y) and "coordinates" not in row:
            row["coordinates"] = f"{x or '?'}, {y or '?'}"
        found[stem] = row
    return found


def _read(table: Path, key: str, fields: Sequence[str]) -> dict[str, tuple[dict[str, str], int]]:
    """Returns rows and their lines by their key."""
    try:
        data = table.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{table} cannot be read ({reason}): give a CSV file") from None
    text = decoded(data)
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        columns = [name.strip().lower().replace(" ", "_") for name in next(reader, [])]
        _check_columns(table, columns, key, fields)
        found: dict[str, tuple[dict[str, str], int]] = {}
        for row in reader:
            if not any(value.strip() for value in row):
                continue
            if len(row) > len(columns):
                raise DataError(
                    f"{table}, line {reader.line_num}: {len(row)} values for {len(columns)} "
                    "columns: quote values that have the separator in them"
                )
            values = dict(zip(columns, (" ".join(v.split())[:_LONGEST] for v in row), strict=False))
            name = values.pop(key, "")
            if not name:
                raise DataError(f"{table}, line {reader.line_num}: no {key}: add or remove it")
            if name in found:
                raise DataError(
                    f"{table}, line {reader.line_num}: {key} {name} is there twice: keep one row"
                )
            found[name] = ({k: v for k, v in values.items() if v}, reader.line_num)
    except csv.Error as error:
        raise DataError(f"{table} is no CSV file ({error}): save it again as CSV") from None
    return found


def _check_columns(table: Path, columns: Sequence[str], key: str, fields: Collection[str]) -> None:
    allowed = f"{key}, {', '.join(fields)}"
    if key not in columns:
        raise DataError(f"{table} has no column {key} in its first line: its columns are {allowed}")
    for name in columns:
        if name not in (key, *fields):
            raise DataError(
                f"{table} has a column {name[:40]!r}: a worksheet has {allowed}, and no patient's "
                "data"
            )
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise DataError(f"{table} has the column {twice[0]} twice: keep one")
