"""A review's store: predictions taken in, events added, states read."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from deepacc_d2.prediction.record import from_record
from deepacc_d2.review import events as ev
from deepacc_d2.review.cases import CaseEntry, CaseState, Rule, apply_case, replay_case
from deepacc_d2.review.recount import Recount, Rules, recount
from deepacc_d2.review.replay import replay, replay_next
from deepacc_d2.review.state import CellState, EditError
from deepacc_d2.review.store.chain import add_entry, canonical, now, sha256
from deepacc_d2.review.store.database import StoreError, open_engine, reading, writing
from deepacc_d2.review.store.tables import cases, cells, corrections, predictions, trail
from deepacc_d2.review.summary import corrected, difference, state_name, summarize

_CACHED = 256


class NotThereError(StoreError):
    """A cell or case that the store does not have."""


class ConflictError(StoreError):
    """Somebody else changed what an event was made on.

    Attributes:
        version: that it has now.
    """

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


@dataclass(frozen=True)
class ReviewedCell:
    """A cell as it is now.

    Attributes:
        id: in the store.
        case_id: in the store, None without a case.
        version: number of its last entry in the trail.
        job: content of the job's ``job.json``.
        state: after all events.
        found: computed from ``state``.
        events: all of it.
    """

    id: int
    case_id: int | None
    version: int
    job: Mapping[str, Any]
    state: CellState
    found: Recount
    events: Sequence[Any]

    @property
    def name(self) -> str:
        """Of the cell."""
        return self.state.prediction.name


class Store:
    """A review's store.

    Attributes:
        engine: of the database.
    """

    def __init__(self, url: str | Path) -> None:
        """Opens a store, and makes it where there is none.

        Raises:
            UserError: see :func:`deepacc_d2.review.store.database.open_engine`.
        """
        self.engine = open_engine(url)
        self._cache: OrderedDict[int, ReviewedCell] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def cell(self, cell_id: int) -> ReviewedCell:
        """Returns a cell.

        Raises:
            NotThereError: there is none of this id.
        """
        with reading(self.engine) as connection:
            return self._cell(connection, cell_id)

    def read(self, connection: Connection, cell_id: int) -> ReviewedCell:
        """Returns a cell as a transaction sees it; see :meth:`cell`."""
        return self._cell(connection, cell_id)

    def case_state(self, case_id: int) -> CaseState:
        """Returns a case's override and signatures."""
        with reading(self.engine) as connection:
            return case_state(connection, case_id)

    def add_cell_event(
        self, cell_id: int, event: Any, *, base: int, who: str, key: str | None = None
    ) -> ReviewedCell:
        """Adds an event of a cell; when this returns, it is on the disk.

        Args:
            cell_id: of the cell.
            event: of :mod:`deepacc_d2.review.events`.
            base: ``version`` of the cell that it was made on.
            who: user name.
            key: of the sender's choice; an event that is sent again with it is added once.

        Returns:
            The cell after it.

        Raises:
            NotThereError: there is no such cell.
            ConflictError: the cell has another version by now.
            EditError: the event does not fit.
        """
        # What takes time is computed before it is this writer's turn.
        seen = self.cell(cell_id)
        after = self._after(seen, event) if seen.version == base else None
        with writing(self.engine) as connection:
            if _sent_before(connection, key, who, cell_id=cell_id):
                return self._cell(connection, cell_id)
            cell = self._cell(connection, cell_id)
            if base != cell.version or after is None:
                raise ConflictError(
                    f"cell {cell.name} was changed by somebody else in the meantime", cell.version
                )
            at = now()
            if cell.case_id is not None:
                apply_case(case_state(connection, cell.case_id), CaseEntry(who, at))
            old, new = difference(cell.state, after.state, (cell.found, after.found))
            entry = add_entry(
                connection,
                who=who,
                at=at,
                kind=event.kind,
                event=event.model_dump(mode="json"),
                before=old,
                after=new,
                case_id=cell.case_id,
                cell_id=cell.id,
                base=base,
                key=key,
                **model_of(cell.job),
            )
            made = ReviewedCell(
                cell.id,
                cell.case_id,
                entry["seq"],
                cell.job,
                after.state,
                after.found,
                after.events,
            )
            write_computed(connection, made)
        self._keep(made)
        return made

    def _after(self, cell: ReviewedCell, event: Any) -> ReviewedCell:
        events = [*cell.events, event]
        state = replay_next(cell.state, events)
        found = recount(state, Rules.of_job(cell.job))
        if isinstance(event, ev.Confirm) and found.cell.unfit:
            raise EditError(
                f"cell {cell.name} is unfit ({found.cell.reasons[0]}): say first that it is "
                "countable"
            )
        return ReviewedCell(cell.id, cell.case_id, cell.version, cell.job, state, found, events)

    def add_case_event(
        self,
        case_id: int,
        event: Any,
        *,
        base: int,
        who: str,
        key: str | None = None,
        rule: Rule | None = None,
    ) -> CaseState:
        """Adds an event of a case; see :meth:`add_cell_event`.

        Args:
            case_id: of the case.
            event: see there; of a signature the state is filled in here.
            base: ``version`` of the case, which any event of its cells changes too.
            who: user name.
            key: see there.
            rule: the laboratory's; signing against it needs a reason.

        Raises:
            NotThereError, ConflictError, EditError: see there.
        """
        with writing(self.engine) as connection:
            state = case_state(connection, case_id)
            if _sent_before(connection, key, who, case_id=case_id):
                return state
            row = _case(connection, case_id)
            if base != row.version:
                raise ConflictError(
                    f"case {row.name} was changed by somebody else in the meantime", row.version
                )
            if isinstance(event, ev.Sign):
                event = self._signature(connection, case_id, event, state, rule)
            at = now()
            after = apply_case(state, CaseEntry(who, at, event))
            entry = add_entry(
                connection,
                who=who,
                at=at,
                kind=event.kind,
                event=event.model_dump(mode="json"),
                before=case_record(state),
                after=case_record(after),
                case_id=case_id,
                base=base,
                key=key,
            )
            connection.execute(
                update(cases).where(cases.c.id == case_id).values(version=entry["seq"])
            )
            return after

    def _signature(
        self,
        connection: Connection,
        case_id: int,
        event: ev.Sign,
        state: CaseState,
        rule: Rule | None,
    ) -> ev.Sign:
        rows = connection.execute(select(cells.c.summary).where(cells.c.case_id == case_id)).all()
        levels = [json.loads(row.summary)["confirmed"] for row in rows]
        lacking = rule.missing(levels) if rule else ""
        if lacking and not event.reason.strip():
            raise EditError(f"the rule is not met ({lacking}): give a reason to sign all the same")
        content = self.signed_content(connection, case_id, state)
        return event.model_copy(update={"state": sha256(canonical(content))})

    def signed_content(self, connection: Connection, case_id: int, state: CaseState) -> Any:
        """Returns all that a signature of a case stands for, as plain values."""
        numbers = connection.execute(
            select(cells.c.id).where(cells.c.case_id == case_id).order_by(cells.c.name)
        ).scalars()
        content: dict[str, Any] = {"karyotype": state.karyotype, "reason": state.reason}
        content["cells"] = [cell_content(self._cell(connection, number)) for number in numbers]
        return content

    def _cell(self, connection: Connection, cell_id: int) -> ReviewedCell:
        row = connection.execute(
            select(cells.c.id, cells.c.version).where(cells.c.id == cell_id)
        ).one_or_none()
        if row is None:
            raise NotThereError(f"there is no cell {cell_id}")
        with self._lock:
            kept = self._cache.get(cell_id)
            if kept is not None and kept.version == row.version:
                self._cache.move_to_end(cell_id)
                return kept
        read = read_cell(connection, cell_id)
        self._keep(read)
        return read

    def _keep(self, cell: ReviewedCell) -> None:
        with self._lock:
            kept = self._cache.get(cell.id)
            if kept is not None and kept.version > cell.version:
                return  # read by a transaction that began earlier
            self._cache[cell.id] = cell
            self._cache.move_to_end(cell.id)
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)


def read_cell(connection: Connection, cell_id: int) -> ReviewedCell:
    """Computes a cell from its prediction and its events in the trail."""
    row = connection.execute(
        select(cells.c.id, cells.c.name, cells.c.case_id, cells.c.version)
        .add_columns(predictions.c.prediction, predictions.c.job)
        .select_from(cells.join(predictions, predictions.c.cell_id == cells.c.id))
        .where(cells.c.id == cell_id)
    ).one()
    prediction = from_record(json.loads(row.prediction), row.name)
    events = [
        ev.read_cell_event(json.loads(text))
        for text in connection.execute(
            select(trail.c.event)
            .where(trail.c.cell_id == cell_id, trail.c.kind != "import")
            .order_by(trail.c.seq)
        ).scalars()
    ]
    job = json.loads(row.job)
    state = replay(prediction, events)
    found = recount(state, Rules.of_job(job))
    return ReviewedCell(row.id, row.case_id, row.version, job, state, found, events)


def write_computed(connection: Connection, cell: ReviewedCell) -> None:
    """Writes what lists show of a cell, and the versions of it and its case."""
    summary = summarize(cell.state, cell.found, cell.events)
    connection.execute(
        update(cells)
        .where(cells.c.id == cell.id)
        .values(
            version=cell.version,
            state=state_name(cell.state, cell.found),
            confidence=summary["confidence"],
            summary=canonical(summary),
        )
    )
    if cell.case_id is not None:
        connection.execute(
            update(cases).where(cases.c.id == cell.case_id).values(version=cell.version)
        )
    connection.execute(delete(corrections).where(corrections.c.cell_id == cell.id))
    rows = correction_rows(cell)
    if rows:
        connection.execute(insert(corrections), rows)


def correction_rows(cell: ReviewedCell) -> list[dict[str, Any]]:
    """Returns a cell's rows of the table of corrections."""
    return [
        {"cell_id": cell.id, "chromosome": number, "predicted": old, "current": new}
        for number, (old, new) in corrected(cell.state).items()
    ]


def case_state(connection: Connection, case_id: int) -> CaseState:
    """Replays a case's events, those of its cells among them.

    Raises:
        NotThereError: there is no such case.
    """
    _case(connection, case_id)
    return case_states(connection, case_id).get(case_id, CaseState())


def case_states(connection: Connection, case_id: int | None = None) -> dict[int, CaseState]:
    """Replays the events of all cases, or of one, by id; those without any are not in it."""
    own = select(trail.c.case_id, trail.c.seq, trail.c.who, trail.c.at, trail.c.event).where(
        trail.c.cell_id.is_(None), trail.c.case_id.is_not(None)
    )
    if case_id is not None:
        own = own.where(trail.c.case_id == case_id)
    entries: dict[int, list[tuple[int, CaseEntry]]] = {}
    for row in connection.execute(own.order_by(trail.c.seq)):
        event = ev.read_case_event(json.loads(row.event))
        entries.setdefault(row.case_id, []).append((row.seq, CaseEntry(row.who, row.at, event)))
    if not entries:
        return {}
    firsts = {number: told[0][0] for number, told in entries.items()}
    # Of its cells only what came after a case's first event may matter, and only that it came.
    edits = select(trail.c.case_id, trail.c.seq, trail.c.who, trail.c.at).where(
        trail.c.cell_id.is_not(None),
        trail.c.kind != "import",
        trail.c.seq > min(firsts.values()),
        trail.c.case_id.is_not(None) if case_id is None else trail.c.case_id == case_id,
    )
    for edit in connection.execute(edits):
        if edit.seq > firsts.get(edit.case_id, edit.seq):
            entries[edit.case_id].append((edit.seq, CaseEntry(edit.who, edit.at)))
    return {
        number: replay_case(entry for _, entry in sorted(told, key=lambda each: each[0]))
        for number, told in entries.items()
    }


def case_record(state: CaseState) -> dict[str, Any]:
    """Returns a case's state as plain values."""
    return {
        "karyotype": state.karyotype,
        "reason": state.reason,
        "given_by": state.given_by,
        "locked": state.locked,
        "signatures": [
            {"role": s.role, "who": s.who, "at": s.at, "state": s.state, "reason": s.reason}
            for s in state.signatures
        ],
    }


def cell_content(cell: ReviewedCell) -> dict[str, Any]:
    """Returns what a signature says of a cell."""
    return {
        "name": cell.name,
        "karyotype": cell.found.cell.karyotype,
        "status": cell.found.cell.status,
        "reasons": list(cell.found.cell.reasons),
        "confirmed": cell.state.confirmed,
        "chromosomes": [
            [c.id, list(c.box), c.name, c.turned, [list(p) for p in c.outline]]
            + (["derivative"] if c.derivative else [])
            for c in cell.state.chromosomes
        ],
    }


def model_of(job: Mapping[str, Any]) -> dict[str, str]:
    """Returns name and SHA-256 of the model that predicted, as the trail's columns."""
    model = job.get("model") or {}
    return {"model": str(model.get("name", "")), "model_sha256": str(model.get("sha256", ""))}


def _case(connection: Connection, case_id: int) -> Row[Any]:
    row = connection.execute(select(cases).where(cases.c.id == case_id)).one_or_none()
    if row is None:
        raise NotThereError(f"there is no case {case_id}")
    return row


def _sent_before(
    connection: Connection,
    key: str | None,
    who: str,
    *,
    cell_id: int | None = None,
    case_id: int | None = None,
) -> bool:
    """Whether an event with a key is in the trail already.

    Raises:
        EditError: it is another one's.
    """
    if key is None:
        return False
    row = connection.execute(
        select(trail.c.who, trail.c.cell_id, trail.c.case_id).where(trail.c.key == key)
    ).one_or_none()
    if row is None:
        return False
    same = row.cell_id == cell_id if cell_id is not None else row.case_id == case_id
    if row.who != who or not same:
        raise EditError("the key of this event was used for another one: make a new one")
    return True
