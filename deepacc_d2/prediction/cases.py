"""Which patient or culture an image is of: by its folder, or by a table."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.text import decoded


def case_ids(paths: Sequence[Path], cases: str | Path | None) -> list[str | None]:
    """Returns the case of each image.

    Args:
        paths: of the images.
        cases: None: no image has one. ``folder``: the name of the folder that an image is in,
            with that of the folder above in front where two folders are called alike. Else a CSV
            file with a header that has the columns ``file`` and ``case``, in either case and any
            order, separated by commas, semicolons or tabs, in UTF-8, UTF-16 or Windows' Western
            encoding. ``file`` is a path (absolute, or the end of one), a file name or a stem. Rows
            of other images are passed over, so that one table serves a laboratory; an empty
            ``case`` says that an image has none.

    Raises:
        ConfigError: there is no such file.
        DataError: the table cannot be read, names two images by one name or gives one two cases,
            leaves an image out, or fits none.
    """
    if cases is None:
        return [None] * len(paths)
    if str(cases) == "folder":
        return _folder_names([path.absolute().parent for path in paths])
    table = Path(cases)
    rows = _read_rows(table)
    return _match(paths, rows, table)


def _folder_names(folders: Sequence[Path]) -> list[str | None]:
    """Returns a name for each folder, with as much of its path as makes it unique."""
    names = {folder: folder.name or folder.as_posix() for folder in folders}
    rules: list[Callable[[Path], str]] = [lambda f: f"{f.parent.name}/{f.name}", Path.as_posix]
    for rule in rules:
        often = Counter(names.values())
        names = {f: rule(f) if often[name] > 1 else name for f, name in names.items()}
    return [names[folder] for folder in folders]


def _read_rows(table: Path) -> list[tuple[int, str, str]]:
    """Returns line number, file and case of each row.

    Raises:
        ConfigError: there is no such file.
        DataError: it is no such table.
    """
    try:
        data = table.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"CASES {table} cannot be read ({reason}): give `folder` or a CSV file"
        ) from None
    text = decoded(data)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [name.strip().lower() for name in next(lines, [])]
        if "file" not in columns or "case" not in columns:
            raise DataError(
                f"cases {table} has no columns file and case in its first line: add the header "
                "file,case"
            )
        file, case = columns.index("file"), columns.index("case")
        rows = []
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= max(file, case) or not row[file].strip():
                raise DataError(
                    f"cases {table}, line {lines.line_num}: no file and case: complete or remove it"
                )
            rows.append((lines.line_num, row[file].strip(), row[case].strip()))
    except csv.Error as error:
        raise DataError(f"cases {table} is no CSV file ({error}): save it again as CSV") from None
    return rows


def _match(
    paths: Sequence[Path], rows: Sequence[tuple[int, str, str]], table: Path
) -> list[str | None]:
    """Returns the case of each image by the table's rows.

    Raises:
        DataError: see :func:`case_ids`.
    """
    full = [path.absolute().as_posix() for path in paths]
    by_name: dict[str, list[int]] = {}
    by_stem: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        by_name.setdefault(path.name, []).append(i)
        by_stem.setdefault(path.stem, []).append(i)
    found: dict[int, tuple[int, str]] = {}
    for line, file, case in rows:
        asked = file.replace("\\", "/")
        name = asked.rsplit("/", 1)[-1]
        hits = by_name.get(name) or by_stem.get(name) or []
        if "/" in asked:
            hits = [i for i in hits if _ends_alike(full[i], asked, table)]
        if len(hits) > 1:
            raise DataError(
                f"cases {table}, line {line}: {file} names {paths[hits[0]]} and {paths[hits[1]]}: "
                "write the path"
            )
        for i in hits:
            if i in found and found[i][1] != case:
                raise DataError(
                    f"cases {table}, lines {found[i][0]} and {line}: {file} has the cases "
                    f"{found[i][1]!r} and {case!r}: keep one"
                )
            found[i] = (line, case)
    missing = [path for i, path in enumerate(paths) if i not in found]
    if missing:
        count = f"{len(missing)} of {len(paths)} images have" if len(paths) > 1 else "the image has"
        raise DataError(
            f"cases {table}: {count} no row, such as {missing[0]}: add it, with an empty case if "
            "it has none"
        )
    return [found[i][1] or None for i in range(len(paths))]


def _ends_alike(path: str, asked: str, table: Path) -> bool:
    """Whether an absolute path is what a row of a table asks for."""
    if asked.startswith(("./", "../")):
        asked = os.path.normpath(table.absolute().parent.as_posix() + "/" + asked)
    stemless = path.rsplit("/", 1)[0] + "/" + Path(path).stem
    ends = [asked, "/" + asked.lstrip("/")]
    return path in ends or stemless in ends or path.endswith(ends[1]) or stemless.endswith(ends[1])
