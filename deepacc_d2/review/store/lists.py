"""What lists show: cells, cases, corrections, the trail; no cell is computed for them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.karyotype.case import CaseResult, summarize_counts, without_markers
from deepacc_d2.review.cases import Rule
from deepacc_d2.review.store.store import case_record, case_state, case_states
from deepacc_d2.review.store.tables import cases, cells, corrections, trail
from deepacc_d2.review.summary import STATES

MOST = 500
"""Rows of a list that are given at once."""


def list_cells(
    connection: Connection,
    *,
    state: str = "",
    case_id: int | None = None,
    words: str = "",
    start: int = 0,
    limit: int | None = MOST,
) -> dict[str, Any]:
    """Lists cells: those that nobody finished first, the least sure of them first.

    Args:
        connection: to read from.
        state: only of this one of :data:`STATES`.
        case_id: only of this case.
        words: only those in whose name, case or karyotype each of these is, in either case.
        start, limit: which part of the list; all from ``start`` on where ``limit`` is None.

    Returns:
        ``total`` and ``cells``.
    """
    source = cells.outerjoin(cases, cells.c.case_id == cases.c.id)
    wanted = []
    if state in STATES:
        wanted.append(cells.c.state == state)
    if case_id is not None:
        wanted.append(cells.c.case_id == case_id)
    for word in words.split()[:10]:
        pattern = "%" + word.lower().replace("\\", "\\\\").replace("%", r"\%") + "%"
        pattern = pattern.replace("_", r"\_")
        columns = (cells.c.name, cases.c.name, cells.c.summary)
        wanted.append(or_(*(func.lower(c).like(pattern, escape="\\") for c in columns)))
    condition = and_(True, *wanted)
    total = connection.execute(select(func.count()).select_from(source).where(condition)).scalar()
    order = case({"new": 0, "in_review": 0, "unfit": 1, "done": 2}, value=cells.c.state, else_=3)
    rows = connection.execute(
        select(
            *(cells.c.id, cells.c.name, cells.c.case_id, cells.c.version),
            *(cells.c.state, cells.c.summary, cases.c.name.label("case_name")),
        )
        .select_from(source)
        .where(condition)
        .order_by(order, cells.c.confidence, cells.c.name)
        .offset(max(start, 0))
        .limit(None if limit is None else max(1, min(limit, MOST)))
    )
    return {"total": total, "cells": [cell_line(row) for row in rows]}


def cell_line(row: Any) -> dict[str, Any]:
    """Returns what lists show of a cell."""
    return {
        "id": row.id,
        "name": row.name,
        "case_id": row.case_id,
        "case": row.case_name,
        "version": row.version,
        "state": row.state,
        **json.loads(row.summary),
    }


def neighbors(connection: Connection, cell_id: int) -> dict[str, int | None]:
    """Returns the cells before and after one within its case, by name, numbers in their order.

    Returns:
        ``previous`` and ``next``: ids, None at an end or where there is no such cell.
    """
    own = select(cells.c.case_id).where(cells.c.id == cell_id).scalar_subquery()
    same = or_(cells.c.case_id == own, and_(cells.c.case_id.is_(None), own.is_(None)))
    rows = connection.execute(select(cells.c.id, cells.c.name).where(same)).all()
    order = [row.id for row in sorted(rows, key=lambda row: (_natural(row.name), row.name))]
    if cell_id not in order:
        return {"previous": None, "next": None}
    at = order.index(cell_id)
    return {
        "previous": order[at - 1] if at else None,
        "next": order[at + 1] if at + 1 < len(order) else None,
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns what sorts cell2 before cell10."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def list_cases(connection: Connection, rule: Rule) -> list[dict[str, Any]]:
    """Lists all cases by name, with the numbers of their cells in each state."""
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(select(cases).order_by(cases.c.name)):
        found[row.id] = {
            "id": row.id,
            "name": row.name,
            "version": row.version,
            "states": dict.fromkeys(STATES, 0),
            "signed_by": [],
            "locked": False,
        }
    levels: dict[int, list[str]] = {number: [] for number in found}
    rows = connection.execute(
        select(cells.c.case_id, cells.c.state, cells.c.summary).where(cells.c.case_id.is_not(None))
    )
    for row in rows:
        found[row.case_id]["states"][row.state] += 1
        levels[row.case_id].append(json.loads(row.summary)["confirmed"])
    for number, state in case_states(connection).items():
        found[number]["signed_by"] = [s.who for s in state.signatures]
        found[number]["locked"] = state.locked
    for number, told in found.items():
        told["progress"] = rule.progress(levels[number])
    return list(found.values())


def case_page(connection: Connection, case_id: int, rule: Rule) -> dict[str, Any]:
    """Returns everything about a case: its cells, clones, karyotype, rule and signatures.

    Raises:
        NotThereError: there is no such case.
    """
    state = case_state(connection, case_id)
    row = connection.execute(select(cases).where(cases.c.id == case_id)).one()
    lines = list_cells(connection, case_id=case_id, limit=None)["cells"]
    lines.sort(key=lambda line: line["name"])
    result = summarize_lines(lines, row.name)
    levels = [line["confirmed"] for line in lines]
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "cells": lines,
        "result": result.to_record(),
        "markers": sum(bool(line["markers"]) for line in lines),
        "rule": rule.progress(levels),
        "missing": rule.missing(levels),
        **{"override": case_record(state)},
    }


def summarize_lines(lines: Sequence[dict[str, Any]], name: str | None) -> CaseResult:
    """Summarizes a case from what lists show of its cells."""
    markers = [line["markers"] for line in lines]
    return summarize_counts(
        [line["name"] for line in lines],
        [line["counts"] for line in lines],
        case_id=name,
        counts_by_box=[line["counts_by_box"] for line in lines],
        confidences=[line["confidence"] for line in lines],
        unfit={
            n: "; ".join(line["reasons"])
            for n, line in enumerate(lines)
            if line["status"] == "unfit"
        },
        unidentified=without_markers([line["unidentified"] for line in lines], markers),
        unidentified_by_box=without_markers(
            [line["unidentified_by_box"] for line in lines], markers
        ),
        markers=markers,
        derivatives=[line.get("derivatives", [0] * NUM_CLASSES) for line in lines],
    )


def confirmed_by(connection: Connection) -> dict[str, str]:
    """Returns who confirmed each cell last, by its name; only of cells that were ever confirmed."""
    rows = connection.execute(
        select(cells.c.name, trail.c.who)
        .select_from(trail.join(cells, trail.c.cell_id == cells.c.id))
        .where(trail.c.kind == "confirm")
        .order_by(trail.c.seq)
    )
    return {row.name: row.who for row in rows}


def search_corrections(
    connection: Connection,
    predicted: str = "",
    current: str = "",
    start: int = 0,
    limit: int = MOST,
) -> dict[str, Any]:
    """Finds chromosomes that are no longer what was predicted, over all cases.

    Args:
        connection: to read from.
        predicted, current: class, ``mar`` or ``?``; ``none`` for none; empty for any.
        start, limit: which part of the list.

    Returns:
        ``total`` and ``corrections``.
    """
    wanted = [
        column == ("" if name == "none" else name)
        for column, name in (
            (corrections.c.predicted, predicted),
            (corrections.c.current, current),
        )
        if name
    ]
    condition = and_(True, *wanted)
    total = connection.execute(
        select(func.count()).select_from(corrections).where(condition)
    ).scalar()
    rows = connection.execute(
        select(
            *(corrections.c.cell_id, corrections.c.chromosome, corrections.c.predicted),
            *(corrections.c.current, cells.c.name, cells.c.case_id, cases.c.name.label("case")),
        )
        .select_from(
            corrections.join(cells, corrections.c.cell_id == cells.c.id).outerjoin(
                cases, cells.c.case_id == cases.c.id
            )
        )
        .where(condition)
        .order_by(cells.c.name, corrections.c.chromosome)
        .offset(max(start, 0))
        .limit(max(1, min(limit, MOST)))
    ).mappings()
    return {"total": total, "corrections": [dict(row) for row in rows]}


def list_trail(
    connection: Connection,
    *,
    cell_id: int | None = None,
    case_id: int | None = None,
    after: int = 0,
    limit: int = MOST,
) -> list[dict[str, Any]]:
    """Lists entries of the trail, of a cell, a case with its cells, or all, in their order."""
    wanted = [trail.c.seq > after]
    if cell_id is not None:
        wanted.append(trail.c.cell_id == cell_id)
    if case_id is not None:
        wanted.append(trail.c.case_id == case_id)
    rows = connection.execute(
        select(trail).where(*wanted).order_by(trail.c.seq).limit(max(1, min(limit, MOST)))
    ).mappings()
    return [
        {**row, **{name: json.loads(row[name]) for name in ("event", "before", "after")}}
        for row in rows
    ]


def figures(connection: Connection) -> dict[str, Any]:
    """Returns how much work the confirmed cells were: the figures such systems are judged by.

    Returns:
        ``cells`` confirmed as ``analyzed`` or ``karyotyped``, their ``chromosomes``, how many of
        them were ``touched`` (class, box or existence changed) and ``touched_share`` of both,
        ``untouched_cells``, and ``seconds_per_cell``: the median of those that the page measured;
        None where there is nothing yet.
    """
    lines = [
        json.loads(text)
        for text in connection.execute(
            select(cells.c.summary).where(cells.c.state == "done")
        ).scalars()
    ]
    lines = [line for line in lines if line["confirmed"] in ("analyzed", "karyotyped")]
    number = sum(line["count"] for line in lines)
    touched = sum(line["touched"] for line in lines)
    seconds = sorted(line["seconds"] for line in lines if line["seconds"] > 0)
    middle = len(seconds) // 2
    median = None
    if seconds:
        median = seconds[middle] if len(seconds) % 2 else sum(seconds[middle - 1 : middle + 1]) / 2
    return {
        "cells": len(lines),
        "chromosomes": number,
        "touched": touched,
        "touched_share": round(touched / number, 5) if number else None,
        "untouched_cells": sum(not line["touched"] for line in lines),
        "seconds_per_cell": median,
        "timed_cells": len(seconds),
    }
