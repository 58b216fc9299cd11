"""A store of each earlier version, with work in it, is brought up and tells the same."""

from __future__ import annotations

import json
import zipfile

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine, insert, select, text

from deepacc_d2.errors import DataError
from deepacc_d2.review import events as ev
from deepacc_d2.review.backup import backup, restore
from deepacc_d2.review.store import database
from deepacc_d2.review.store.database import _config, open_engine, reading, version_of
from deepacc_d2.review.store.store import Store
from deepacc_d2.review.store.tables import metadata
from deepacc_d2.review.store.verify import verify

EARLIER = ("0001",)


def contents(store):
    """All rows of all tables, logins too."""
    with reading(store.engine) as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for table in metadata.sorted_tables
        }


def as_of_0001(rows):
    """The same rows as the first version kept them: predictions within the cells."""
    told = {row["cell_id"]: row for row in rows["predictions"]}
    own = {name: list(lines) for name, lines in rows.items() if name != "predictions"}
    own["cells"] = [
        {**cell, "prediction": told[cell["id"]]["prediction"], "job": told[cell["id"]]["job"]}
        for cell in own["cells"]
    ]
    return own


@pytest.fixture
def worked(store):
    cell = store.cell(1)
    for event in (
        ev.Reclassify(chromosome=1, to="22"),
        ev.Note(text="it's <odd> \N{SNOWMAN}"),
        ev.Confirm(level="analyzed", seconds=12.5),
    ):
        cell = store.add_cell_event(1, event, base=cell.version, who="ada", key=f"key-{event.kind}")
    return store


def make_earlier(url, version, rows):
    """A database of an earlier version's tables, made by its migrations, with these rows."""
    bare = f"sqlite:///{url}" if not isinstance(url, str) else url
    engine = create_engine(bare)
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        tables = MetaData()
        tables.reflect(connection)
        connection.execute(text("DELETE FROM trail_head"))
        for table in tables.sorted_tables:
            if rows.get(table.name):
                connection.execute(insert(table), rows[table.name])
    engine.dispose()


@pytest.fixture
def other(url, tmp_path):
    """An empty database beside the one of ``store``, of the same kind."""
    if not isinstance(url, str):
        return tmp_path / "earlier.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        schema = connection.execute(text("SELECT current_schema()")).scalar_one()
        connection.execute(text(f"CREATE SCHEMA {schema}_earlier"))
    engine.dispose()
    return url.replace(schema, f"{schema}_earlier")


@pytest.mark.parametrize("version", EARLIER)
def test_a_store_of_an_earlier_version_tells_the_same(worked, other, version):
    before, found = contents(worked), verify(worked)
    make_earlier(other, version, as_of_0001(before))
    brought_up = Store(other)
    try:
        assert version_of(brought_up.engine) == version_of(worked.engine)
        assert contents(brought_up) == before
        assert verify(brought_up) == found
        assert found.problems == []
        assert brought_up.cell(1).state == worked.cell(1).state
        # Work goes on where it was.
        version_now = brought_up.cell(1).version
        brought_up.add_cell_event(1, ev.Undo(), base=version_now, who="ben")
        assert verify(brought_up).problems == []
    finally:
        brought_up.close()


def test_every_earlier_version_is_tested():
    script = ScriptDirectory.from_config(_config())
    known = [revision.revision for revision in script.walk_revisions()]
    assert sorted(known) == [*EARLIER, script.get_current_head()]


def test_a_migration_that_fails_changes_nothing(worked, tmp_path, monkeypatch):
    rows = as_of_0001(contents(worked))
    place = tmp_path / "earlier.db"
    make_earlier(place, "0001", rows)
    upgrade = database.command.upgrade

    def fail(*arguments):
        upgrade(*arguments)
        raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(database.command, "upgrade", fail)
        with pytest.raises(OSError, match="power cut"):
            open_engine(place)
    engine = create_engine(f"sqlite:///{place}")
    with engine.begin() as connection:
        version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        kept = connection.execute(text("SELECT count(prediction) FROM cells")).scalar()
    engine.dispose()
    assert (version, kept) == ("0001", len(rows["cells"]))
    brought_up = Store(place)
    assert contents(brought_up) == contents(worked)
    brought_up.close()


@pytest.mark.parametrize("version", EARLIER)
def test_a_backup_of_an_earlier_version_is_restored(worked, other, tmp_path, version):
    made = tmp_path / "new.zip"
    backup(worked, made)
    earlier = as_of_0001(contents(worked))
    old = tmp_path / "old.zip"
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(old, "w") as target:
        about = {**json.loads(source.read("backup.json")), "version": version}
        target.writestr("backup.json", json.dumps(about))
        for name in source.namelist():
            table = name.removesuffix(".jsonl")
            if table in earlier:
                lines = "".join(json.dumps(row) + "\n" for row in earlier[table])
                target.writestr(name, lines)
    restored = Store(other)
    try:
        restore(restored, old)
        expected = {name: rows for name, rows in contents(worked).items() if name != "sessions"}
        found = contents(restored)
        assert {name: found[name] for name in expected} == expected
    finally:
        restored.close()


def test_a_backup_of_a_later_version_is_refused(worked, tmp_path):
    made, later = tmp_path / "new.zip", tmp_path / "later.zip"
    backup(worked, made)
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(later, "w") as target:
        about = {**json.loads(source.read("backup.json")), "version": "9999"}
        target.writestr("backup.json", json.dumps(about))
    empty = Store(tmp_path / "empty.db")
    with pytest.raises(DataError, match="version 9999"):
        restore(empty, later)
    empty.close()
