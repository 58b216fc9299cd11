"""Backup and restore of a review's store: one file, whichever the database."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.files import whole_file
from deepacc_d2.review.store.database import reading, version_of, writing
from deepacc_d2.review.store.store import Store
from deepacc_d2.review.store.tables import cells, metadata, predictions, sessions, trail
from deepacc_d2.review.store.verify import check

KIND = "deepacc_d2 review backup"
_FIRST = "0001"
"""The first version of the store, whose backups can be restored too."""
_ROWS = 500


def backup(store: Store, path: Path) -> int:
    """Writes all of a store, but for logins, as of one moment, while others work.

    A ZIP of ``backup.json`` and a JSON line for each row of each table, so that it can be read
    without this program, and restored to another kind of database.

    Args:
        store: to back up.
        path: of the file, which appears whole or not at all.

    Returns:
        How many entries the trail in it has.

    Raises:
        ConfigError: the file is there or cannot be written.
    """
    if path.exists():
        raise ConfigError(f"{path} exists: choose another name")
    version = version_of(store.engine)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with (
            whole_file(path.absolute()) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
            reading(store.engine) as connection,
        ):
            count = int(connection.execute(select(func.count()).select_from(trail)).scalar_one())
            about = {"kind": KIND, "version": version, "entries": count}
            archive.writestr("backup.json", json.dumps(about))
            for table in metadata.sorted_tables:
                if table is not sessions:
                    _write_table(archive, connection, table)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}): choose another place"
        ) from error
    return count


def _write_table(archive: zipfile.ZipFile, connection: Connection, table: Any) -> None:
    with archive.open(f"{table.name}.jsonl", "w", force_zip64=True) as file:
        order = list(table.primary_key.columns)
        for row in connection.execute(select(table).order_by(*order)).mappings():
            file.write((json.dumps(dict(row), ensure_ascii=False) + "\n").encode())


def restore(store: Store, path: Path) -> int:
    """Fills an empty store from a backup, and checks the trail before it counts.

    Returns:
        How many entries the trail has.

    Raises:
        ConfigError: the store is not empty.
        DataError: the file is no backup, damaged, of another version, or its trail does not verify.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"backup {path} cannot be read ({error})") from None
    with archive:
        try:
            about = json.loads(archive.read("backup.json"))
        except (KeyError, ValueError, zipfile.BadZipFile, OSError):
            about = None
        if not isinstance(about, dict) or about.get("kind") != KIND:
            raise DataError(f"{path} is no backup of a review")
        version = about.get("version")
        if version not in (_FIRST, version_of(store.engine)):
            raise DataError(
                f"backup {path} is of version {version}, this program of "
                f"{version_of(store.engine)}: restore it with the program that made it"
            )
        try:
            with writing(store.engine) as connection:
                if connection.execute(select(func.count()).select_from(trail)).scalar_one():
                    raise ConfigError(
                        "there is a review already: restore to another folder or database"
                    )
                for table in metadata.sorted_tables:
                    if table is not sessions:
                        connection.execute(delete(table))
                        for rows in _read_table(archive, table.name, str(version)):
                            connection.execute(insert(table), rows)
                _mend_counters(connection)
                problems = check(connection).problems
                if problems:
                    raise DataError(f"backup {path} does not verify: {problems[0]}")
        except (KeyError, ValueError, TypeError, zipfile.BadZipFile, OSError) as error:
            raise DataError(f"backup {path} is damaged ({error})") from error
    return int(about["entries"])


def _read_table(
    archive: zipfile.ZipFile, name: str, version: str
) -> Iterator[list[dict[str, Any]]]:
    # The first version had predictions in the table of cells.
    moved = version == _FIRST and name == predictions.name
    columns = metadata.tables[name].columns.keys()
    with archive.open(f"{cells.name if moved else name}.jsonl") as file:
        rows = []
        for line in file:
            row = json.loads(line)
            if version == _FIRST and name in (cells.name, predictions.name):
                row = {column: row.get(column) for column in columns} | (
                    {"cell_id": row["id"]} if moved else {}
                )
            rows.append(row)
            if len(rows) == _ROWS:
                yield rows
                rows = []
        if rows:
            yield rows


def _mend_counters(connection: Connection) -> None:
    """PostgreSQL does not count rows that were inserted with their ids."""
    if connection.dialect.name != "postgresql":
        return
    for name in ("cases", "cells"):
        connection.exec_driver_sql(
            f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), "
            f"(SELECT coalesce(max(id), 0) + 1 FROM {name}), false)"
        )
