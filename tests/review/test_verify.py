"""The check of the trail finds what somebody did to the database behind the program's back."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from deepacc_d2.review import events as ev
from deepacc_d2.review.store.database import writing
from deepacc_d2.review.store.verify import verify


@pytest.fixture
def worked(store):
    """A store with ten events of a person."""
    cell = store.cell(1)
    for n in range(1, 11):
        event = ev.Reclassify(chromosome=n, to="X" if n % 2 else "?")
        cell = store.add_cell_event(1, event, base=cell.version, who="ada")
    return store


def do(store, statement):
    with writing(store.engine) as connection:
        connection.execute(text(statement))


def test_what_the_program_wrote_verifies(worked):
    verdict = verify(worked)
    assert (verdict.problems, verdict.entries) == ([], 16)
    assert verify(worked, verdict.hash).problems == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE trail SET who = 'eve' WHERE seq = 9", "entry 9 was changed"),
        ("UPDATE trail SET at = '2000-01-01T00:00:00+00:00' WHERE seq = 9", "entry 9 was changed"),
        ("UPDATE trail SET event = '{}' WHERE seq = 1", "entry 1 was changed"),
        ("UPDATE trail SET after = 'null' WHERE seq = 16", "entry 16 was changed"),
        ("DELETE FROM trail WHERE seq = 9", "entry 9 is missing"),
        ("DELETE FROM trail WHERE seq IN (9, 10)", "entry 9 to 10 is missing"),
        ("DELETE FROM trail WHERE seq = 16", "ends at entry 15, but entry 16 was written"),
        ("DELETE FROM trail_head", "record of the last entry is missing"),
        ("UPDATE predictions SET prediction = prediction || ' ' WHERE cell_id = 2", "not the one"),
        ("UPDATE cells SET name = 'other' WHERE id = 2", "not the one"),
        ("UPDATE cells SET case_id = NULL WHERE id = 2", "not the one"),
        ("UPDATE cells SET summary = '{}' WHERE id = 2", "does not follow from its events"),
        ("DELETE FROM corrections", "does not follow from its events"),
        ("UPDATE trail SET cell_id = 2 WHERE seq = 9", "entry 9 was changed"),
    ],
)
def test_finds(worked, statement, says):
    do(worked, statement)
    assert any(says in problem for problem in verify(worked).problems)


def test_a_trail_rewritten_as_a_whole_is_found_by_a_hash_kept_elsewhere(worked):
    kept = verify(worked).hash
    do(worked, "DELETE FROM trail WHERE seq = 16")
    do(
        worked,
        "UPDATE trail_head SET seq = 15, hash = (SELECT hash FROM trail WHERE seq = 15)",
    )
    assert any("rewritten or cut" in problem for problem in verify(worked, kept).problems)
