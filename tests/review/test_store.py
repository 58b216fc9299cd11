"""Events in the store: kept, in order, never lost; states of cases; what is taken in."""

from __future__ import annotations

import json
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.review import events as ev
from deepacc_d2.review.cases import Rule
from deepacc_d2.review.state import EditError
from deepacc_d2.review.store import lists
from deepacc_d2.review.store.database import StoreError, reading, version_of, writing
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.store import ConflictError, NotThereError, Store, case_states
from deepacc_d2.review.store.tables import metadata
from deepacc_d2.review.store.verify import verify


def rows(store, query):
    with reading(store.engine) as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def cell_id(store, name):
    return next(r["id"] for r in rows(store, "SELECT id, name FROM cells") if r["name"] == name)


def case_id(store, name="case 0"):
    return next(r["id"] for r in rows(store, "SELECT id, name FROM cases") if r["name"] == name)


def version(store, case):
    return next(r["version"] for r in rows(store, "SELECT * FROM cases") if r["id"] == case)


def test_takes_in_each_cell_once(store, results):
    assert len(rows(store, "SELECT * FROM cells")) == 6
    assert take_in(store, results).lines() == []
    assert [r["who"] for r in rows(store, "SELECT who FROM trail")] == ["deepacc_d2"] * 6
    assert verify(store).problems == []


def test_the_tables_are_those_of_the_migrations(store):
    with reading(store.engine) as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
    assert version_of(store.engine) == "0002"


def test_an_event_is_kept_with_before_and_after(store, results, url):
    number = cell_id(store, "cell00")
    cell = store.cell(number)
    a = next(c.id for c in cell.state.chromosomes if c.name == "21")
    event = ev.Reclassify(chromosome=a, to="22")
    after = store.add_cell_event(number, event, base=cell.version, who="ada")
    assert after.version == 7
    entry = rows(store, "SELECT * FROM trail WHERE seq = 7")[0]
    assert (entry["who"], entry["kind"], entry["model_sha256"]) == ("ada", "reclassify", "ab" * 32)
    assert entry["at"].endswith("+00:00")
    before, then = json.loads(entry["before"]), json.loads(entry["after"])
    assert before["chromosomes"][str(a)]["class"] == "21"
    assert then["chromosomes"][str(a)]["class"] == "22"
    assert ",-21,+22" in then["karyotype"]
    assert rows(store, "SELECT predicted, current FROM corrections") == [
        {"predicted": "21", "current": "22"}
    ]
    again = Store(url)
    assert again.cell(number).state == after.state
    again.close()
    undone = store.add_cell_event(number, ev.Undo(), base=7, who="ada")
    assert undone.found.cell.karyotype == cell.found.cell.karyotype
    assert rows(store, "SELECT * FROM corrections") == []
    assert verify(store).problems == []


def test_two_people_never_lose_a_change(store):
    number = cell_id(store, "cell00")
    base = store.cell(number).version
    store.add_cell_event(number, ev.Turn(chromosome=1), base=base, who="ada")
    with pytest.raises(ConflictError) as conflict:
        store.add_cell_event(number, ev.Turn(chromosome=2), base=base, who="ben")
    store.add_cell_event(number, ev.Turn(chromosome=2), base=conflict.value.version, who="ben")
    assert [c.id for c in store.cell(number).state.chromosomes if c.turned] == [1, 2]


def test_an_event_sent_twice_is_added_once(store):
    number = cell_id(store, "cell00")
    base = store.cell(number).version
    event = ev.Turn(chromosome=1)
    for _ in range(2):
        after = store.add_cell_event(number, event, base=base, who="ada", key="k1")
    assert after.state.find(1).turned
    with pytest.raises(EditError, match="used for another one"):
        store.add_cell_event(number, event, base=after.version, who="ben", key="k1")


def test_many_writers_at_once(store, url):
    number = cell_id(store, "cell00")

    def work(who):
        own = Store(url)
        made = 0
        while made < 8:
            try:
                base = own.cell(number).version
                own.add_cell_event(number, ev.Note(text=f"{who} {made}"), base=base, who=who)
            except ConflictError:
                continue
            made += 1
        own.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("ada", "ben", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    notes = store.cell(number).state.notes
    assert sorted(notes) == sorted(f"{w} {n}" for w in ("ada", "ben", "eve") for n in range(8))
    assert verify(store).problems == []


def test_a_failed_event_leaves_nothing(store):
    number = cell_id(store, "cell00")
    before = rows(store, "SELECT * FROM trail"), rows(store, "SELECT * FROM cells")
    with pytest.raises(EditError):
        store.add_cell_event(number, ev.Turn(chromosome=999), base=1, who="ada")
    assert (rows(store, "SELECT * FROM trail"), rows(store, "SELECT * FROM cells")) == before
    with pytest.raises(NotThereError):
        store.cell(12345)
    with pytest.raises(NotThereError):
        store.add_case_event(99, ev.Reopen(reason="x"), base=0, who="ada")


def sign(store, case, role, who, **more):
    event = ev.Sign(role=role, **more)
    return store.add_case_event(case, event, base=version(store, case), who=who, rule=Rule(3, 1, 0))


def confirm_all(store, case):
    for row in rows(store, f"SELECT id, version FROM cells WHERE case_id = {case}"):
        store.add_cell_event(row["id"], ev.Confirm(level="analyzed"), base=row["version"], who="a")


def test_signed_by_two_people_a_case_is_locked_until_reopened(store):
    case = case_id(store)
    with pytest.raises(EditError, match=r"rule is not met \(0 of 3 cells counted, 0 of 1"):
        sign(store, case, "first", "ada")
    confirm_all(store, case)
    with pytest.raises(EditError, match="after the first"):
        sign(store, case, "second", "ben")
    sign(store, case, "first", "ada")
    with pytest.raises(EditError, match="another person"):
        sign(store, case, "second", "ada")
    assert sign(store, case, "second", "ben").locked
    number = cell_id(store, "cell01")
    base = store.cell(number).version
    with pytest.raises(EditError, match="locked"):
        store.add_cell_event(number, ev.Turn(chromosome=1), base=base, who="ada")
    override = ev.Override(karyotype="46,XX", reason="seen")
    with pytest.raises(EditError, match="locked"):
        store.add_case_event(case, override, base=version(store, case), who="ada")
    reopen = ev.Reopen(reason="a band was overlooked")
    state = store.add_case_event(case, reopen, base=version(store, case), who="eve")
    assert state.signatures == ()
    store.add_cell_event(number, ev.Turn(chromosome=1), base=base, who="ada")
    assert verify(store).problems == []


def test_a_change_ends_the_first_signature(store):
    case = case_id(store)
    sign(store, case, "first", "ada", reason="few cells")
    number = cell_id(store, "cell01")
    store.add_cell_event(number, ev.Note(text="x"), base=store.cell(number).version, who="ada")
    assert store.case_state(case).signatures == ()
    with pytest.raises(EditError, match="after the first"):
        sign(store, case, "second", "ben", reason="few cells")


def test_override_and_its_end(store):
    case = case_id(store)
    given = ev.Override(karyotype="46,XX,t(9;22)(q34;q11.2)", reason="seen by FISH")
    state = store.add_case_event(case, given, base=version(store, case), who="ada")
    assert (state.karyotype, state.given_by) == ("46,XX,t(9;22)(q34;q11.2)", "ada")
    with pytest.raises(ConflictError):
        store.add_case_event(case, given, base=0, who="ben")
    ended = ev.Override(karyotype="", reason="no")
    assert store.add_case_event(case, ended, base=version(store, case), who="ada").reason == ""


def test_an_unfit_cell_is_not_confirmed(store):
    number = cell_id(store, "cell00")
    base = store.cell(number).version
    torn = ev.SetCountable(countable=False, reason="torn")
    cell = store.add_cell_event(number, torn, base=base, who="ada")
    with pytest.raises(EditError, match="unfit"):
        store.add_cell_event(number, ev.Confirm(level="counted"), base=cell.version, who="ada")
    state = rows(store, f"SELECT state FROM cells WHERE id = {number}")
    assert state == [{"state": "unfit"}]


# Taking in


def change(path, **values):
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, **values}))


def test_predicted_anew_with_and_without_work(store, results):
    worked = cell_id(store, "cell00")
    old = store.add_cell_event(
        worked, ev.Turn(chromosome=1), base=store.cell(worked).version, who="ada"
    )
    for name in ("cell00", "cell01"):
        change(results / "cells" / f"{name}.json", confidence=0.123)
    told = take_in(store, results)
    assert (told.renewed, told.kept) == (["cell01"], ["cell00"])
    assert "keeps the old prediction" in told.lines()[1]
    assert store.cell(worked).state == old.state
    assert store.cell(cell_id(store, "cell01")).found.cell.confidence == 0.123
    assert verify(store).problems == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"format": 1}', '{"format": 2}', '{"format": 2, "name": 3}']
)
def test_a_damaged_record_is_told_and_the_others_are_taken(store, results, content):
    (results / "cells" / "bad.json").write_text(content)
    told = take_in(store, results)
    assert len(told.bad) == 1
    assert "bad.json" in told.bad[0]
    assert "\n" not in told.bad[0]


@pytest.mark.parametrize("content", ["", '{"kind": "else"}', "[]", None])
def test_a_folder_without_predictions_is_refused(store, tmp_path, content):
    root = tmp_path / "empty"
    root.mkdir()
    if content is not None:
        (root / "job.json").write_text(content)
    with pytest.raises((ConfigError, DataError)) as error:
        take_in(store, root)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="not a folder"):
        take_in(store, tmp_path / "nowhere")


def test_odd_case_names_are_plain_data(store, results):
    names = ["<script>alert(1)</script>", "../../etc", "x" * 300, "'; DROP TABLE cells; --"]
    for n, name in enumerate(names):
        path = results / "cells" / f"odd{n}.json"
        path.write_bytes((results / "cells" / "cell00.json").read_bytes())
        change(path, name=f"odd{n}", case=name)
    assert take_in(store, results).bad == []
    assert set(names) <= {r["name"] for r in rows(store, "SELECT name FROM cases")}


# Trouble with the database


def test_a_store_of_a_later_version_is_refused(store, url):
    with writing(store.engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="9999, which this program does not know: update"):
        Store(url)


def test_what_is_no_database(tmp_path):
    path = tmp_path / "review.db"
    path.write_bytes(b"no database at all, but a text of some length" * 30)
    with pytest.raises(StoreError, match=r"damaged.*restore a backup"):
        Store(path)
    with pytest.raises(ConfigError, match="SQLite or PostgreSQL"):
        Store("mysql://localhost/x")
    with pytest.raises(ConfigError, match="URL cannot be used"):
        Store("no url")


def test_a_full_disk_is_told_and_loses_nothing(sqlite_store):
    store = sqlite_store
    number = cell_id(store, "cell00")
    cell = store.cell(number)
    with reading(store.engine) as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    with store.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        connection.rollback()

    def fill():
        nonlocal cell
        for _ in range(200):
            note = ev.Note(text="x" * 2000)
            cell = store.add_cell_event(number, note, base=cell.version, who="ada")

    with pytest.raises(StoreError, match="no space left"):
        fill()
    assert store.cell(number).version == cell.version
    assert verify(store).problems == []


def test_a_locked_database_is_told(sqlite_store, monkeypatch):
    store = sqlite_store
    number = cell_id(store, "cell00")
    other = Store(store.engine.url.render_as_string())
    with writing(other.engine), store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
        connection.rollback()
        connection.close()
        with pytest.raises(StoreError, match="locked by another program"):
            store.add_cell_event(number, ev.Turn(chromosome=1), base=1, who="ada")
    other.close()


def test_lists_that_are_longer_than_one_answer(store, monkeypatch):
    for number in (cell_id(store, "cell00"), cell_id(store, "cell01")):
        cell = store.cell(number)
        for chromosome in [c.id for c in cell.state.chromosomes if c.name == "21"]:
            event = ev.Reclassify(chromosome=chromosome, to="22")
            cell = store.add_cell_event(number, event, base=cell.version, who="ada")
    monkeypatch.setattr(lists, "MOST", 2)
    with reading(store.engine) as connection:
        # A case's page and its karyotype are of all its cells.
        page = lists.case_page(connection, case_id(store), Rule())
        assert [line["name"] for line in page["cells"]] == ["cell00", "cell01", "cell02"]
        assert len(lists.list_cells(connection, limit=500)["cells"]) == 2
        first = lists.search_corrections(connection, "21", "22", limit=3)
        rest = lists.search_corrections(connection, "21", "22", start=2)
    assert first["total"] == rest["total"] == 4
    both = first["corrections"][:2] + rest["corrections"]
    assert len({(row["cell_id"], row["chromosome"]) for row in both}) == 4


def test_the_states_of_all_cases_are_those_of_each(store):
    first, other = (row["id"] for row in rows(store, "SELECT id FROM cases ORDER BY id"))
    for case in (first, other):
        confirm_all(store, case)
        sign(store, case, "first", "ada")
    number = cell_id(store, "cell10")
    store.add_cell_event(number, ev.Note(text="x"), base=store.cell(number).version, who="ben")
    sign(store, first, "second", "ben")
    with reading(store.engine) as connection:
        states = case_states(connection)
        listed = {told["id"]: told for told in lists.list_cases(connection, Rule())}
    assert states == {case: store.case_state(case) for case in (first, other)}
    assert [listed[case]["locked"] for case in (first, other)] == [True, False]
    assert [listed[case]["signed_by"] for case in (first, other)] == [["ada", "ben"], []]
