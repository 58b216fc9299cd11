"""Checks a review's trail: that nothing in it was changed, removed or put in between."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from deepacc_d2.errors import UserError
from deepacc_d2.review.store.chain import FIRST, canonical, entry_hash, sha256
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.store import Store, case_state, correction_rows, read_cell
from deepacc_d2.review.store.tables import cases, cells, corrections, head, predictions, trail
from deepacc_d2.review.summary import summarize

_MOST = 50


@dataclass
class Verdict:
    """What a check found.

    Attributes:
        entries: how many the trail has.
        hash: of the last one: kept elsewhere, it proves later that the trail was not rewritten.
        problems: a line each; empty if all is as it was written.
    """

    entries: int = 0
    hash: str = FIRST
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Keeps a problem, up to a number that can be read."""
        if len(self.problems) < _MOST:
            self.problems.append(problem)


def verify(store: Store, expect: str = "") -> Verdict:
    """Checks the trail, the predictions, and what was computed from both.

    Args:
        store: to check.
        expect: hash of an entry that must be there, as an earlier check or an export printed it.

    Raises:
        StoreError: the store cannot be read.
    """
    with reading(store.engine) as connection:
        return check(connection, expect)


def check(connection: Connection, expect: str = "") -> Verdict:
    """Checks a store within a transaction; see :func:`verify`."""
    verdict = Verdict()
    seen = _check_chain(connection, verdict, expect)
    if expect and not seen:
        verdict.add(f"no entry has the hash {expect[:64]}: the trail was rewritten or cut")
    _check_cells(connection, verdict)
    for case_id, name in connection.execute(select(cases.c.id, cases.c.name)).all():
        try:
            case_state(connection, case_id)
        except UserError as error:
            verdict.add(f"case {name}: its events do not fit each other ({error})")
    return verdict


def _check_chain(connection: Connection, verdict: Verdict, expect: str) -> bool:
    previous, wanted, seen = FIRST, 1, False
    rows = connection.execution_options(yield_per=500).execute(select(trail).order_by(trail.c.seq))
    for mapping in rows.mappings():
        row: dict[str, Any] = {str(name): value for name, value in mapping.items()}
        if row["seq"] != wanted:
            missing = f"{wanted}" if row["seq"] == wanted + 1 else f"{wanted} to {row['seq'] - 1}"
            verdict.add(f"entry {missing} is missing")
        elif row["previous"] != previous:
            verdict.add(f"entry {row['seq']} does not follow the one before it")
        if entry_hash(row) != row["hash"]:
            verdict.add(f"entry {row['seq']} was changed")
        seen = seen or row["hash"] == expect
        previous, wanted = row["hash"], row["seq"] + 1
        verdict.entries += 1
    last = connection.execute(select(head.c.seq, head.c.hash).where(head.c.id == 1)).one_or_none()
    if last is None:
        verdict.add("the record of the last entry is missing")
    elif (last.seq, last.hash) != (wanted - 1, previous):
        verdict.add(f"the trail ends at entry {wanted - 1}, but entry {last.seq} was written")
    verdict.hash = previous
    return seen


def _check_cells(connection: Connection, verdict: Verdict) -> None:
    imported: dict[int, Any] = {}
    rows = connection.execute(
        select(trail.c.cell_id, trail.c.event).where(trail.c.kind == "import").order_by(trail.c.seq)
    )
    for row in rows:
        imported[row.cell_id] = json.loads(row.event)
    kept: dict[int, list[Any]] = {}
    for correction in connection.execute(select(corrections)).mappings():
        kept.setdefault(correction["cell_id"], []).append(dict(correction))
    case_names = {r.id: r.name for r in connection.execute(select(cases.c.id, cases.c.name))}
    numbers = connection.execute(select(cells.c.id).order_by(cells.c.id)).scalars().all()
    for number in numbers:
        row = connection.execute(
            select(cells, predictions.c.prediction, predictions.c.job)
            .select_from(cells.outerjoin(predictions, predictions.c.cell_id == cells.c.id))
            .where(cells.c.id == number)
        ).one()
        told = imported.pop(number, None)
        own = {
            "name": row.name,
            "case": case_names.get(row.case_id),
            "prediction_sha256": sha256(row.prediction or ""),
            "job_sha256": sha256(row.job or ""),
        }
        if told != own or row.prediction_sha256 != own["prediction_sha256"]:
            verdict.add(f"cell {row.name}: its prediction is not the one that was taken in")
            continue
        try:
            cell = read_cell(connection, number)
        except UserError as error:
            verdict.add(f"cell {row.name}: its events do not fit each other ({error})")
            continue
        summary = canonical(summarize(cell.state, cell.found, cell.events))
        rows_of_cell = sorted(kept.get(number, []), key=lambda each: each["chromosome"])
        if summary != row.summary or rows_of_cell != correction_rows(cell):
            verdict.add(f"cell {row.name}: what lists show of it does not follow from its events")
    for event in imported.values():
        verdict.add(f"cell {event.get('name')} was taken in, but is gone")
