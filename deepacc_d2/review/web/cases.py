"""Routes of cases and of the review as a whole."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from deepacc_d2.cell import Cell
from deepacc_d2.errors import DataError
from deepacc_d2.karyogram import Karyogram, save_case_report
from deepacc_d2.karyotype.case import CaseResult
from deepacc_d2.review.cases import CaseState
from deepacc_d2.review.events import CaseEvent, Override, Reopen, Sign
from deepacc_d2.review.export import about_models, amended, reviewed_facts
from deepacc_d2.review.fhir import fhir_bundle
from deepacc_d2.review.people import ADMINISTRATOR, REVIEWER
from deepacc_d2.review.pictures import karyogram_of
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.lists import (
    case_page,
    confirmed_by,
    figures,
    list_cases,
    list_trail,
    summarize_lines,
)
from deepacc_d2.review.store.tables import head, trail
from deepacc_d2.review.store.verify import verify
from deepacc_d2.review.web.cells import Key
from deepacc_d2.review.web.context import By, Context, InContext
from deepacc_d2.worksheet.laboratory import laboratory_of
from deepacc_d2.worksheet.pdf import printer, write_pdf
from deepacc_d2.worksheet.sheet import shown_cells, worksheet_html

router = APIRouter(tags=["cases"])


class CasePost(BaseModel):
    """An event of a case, what it was made on, and a key; see CellPost.

    With a login, a signature needs the password once more.
    """

    model_config = ConfigDict(extra="forbid")

    event: CaseEvent
    base: Annotated[int, Field(ge=0)]
    key: Key | None = None
    password: Annotated[str, Field(max_length=1000)] = ""


@router.get("/cases")
def get_cases(context: InContext, by: By) -> list[dict[str, Any]]:
    """Lists all cases."""
    with reading(context.store.engine) as connection:
        return list_cases(connection, context.rule)


@router.get("/cases/{case_id}")
def get_case(context: InContext, by: By, case_id: int) -> dict[str, Any]:
    """Returns everything about a case: cells, clones, karyotype, rule, signatures."""
    with reading(context.store.engine) as connection:
        return case_page(connection, case_id, context.rule)


@router.post("/cases/{case_id}/events")
def post_case_event(
    context: InContext, by: By, case_id: int, post: CasePost, request: Request
) -> dict[str, Any]:
    """Adds an event of a case and returns the case after it."""
    event = post.event
    second = isinstance(event, Sign) and event.role == "second"
    if second or isinstance(event, Override | Reopen):
        by.need(REVIEWER)
    if isinstance(event, Sign) and not context.is_alone():
        address = request.client.host if request.client else ""
        context.people.check_password(by.name, post.password, address)
    context.store.add_case_event(
        case_id, event, base=post.base, who=by.name, key=post.key, rule=context.rule
    )
    return get_case(context, by, case_id)


@router.get("/cases/{case_id}/trail")
def get_case_trail(
    context: InContext, by: By, case_id: int, after: int = 0
) -> list[dict[str, Any]]:
    """Lists the trail's entries of a case and its cells."""
    with reading(context.store.engine) as connection:
        return list_trail(connection, case_id=case_id, after=after)


@router.get("/cases/{case_id}/report.pdf")
def get_report(context: InContext, by: By, case_id: int) -> Response:
    """Draws the case's page as an export does."""
    told = _case_told(context, case_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.pdf"
        save_case_report(path, told.result, told.cells, told.karyograms, about=told.about)
        data = path.read_bytes()
    return _download(data, f"case-{case_id}.pdf", "application/pdf")


@router.get("/cases/{case_id}/worksheet.html")
def get_worksheet(context: InContext, by: By, case_id: int) -> Response:
    """Fills the case's worksheet as an export does, for print."""
    html = _worksheet(context, case_id)
    return _download(html.encode(), f"worksheet-{case_id}.html", "text/html")


@router.get("/cases/{case_id}/worksheet.pdf")
def get_worksheet_pdf(context: InContext, by: By, case_id: int) -> Response:
    """Prints the case's worksheet; needs WeasyPrint on the server."""
    printer()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "worksheet.pdf"
        write_pdf(_worksheet(context, case_id), path)
        data = path.read_bytes()
    return _download(data, f"worksheet-{case_id}.pdf", "application/pdf")


@dataclass(frozen=True)
class _CaseTold:
    """What the pages of a case are made of."""

    result: CaseResult
    cells: list[Cell]
    karyograms: list[Karyogram]
    state: CaseState
    levels: dict[str, str]
    about: str


def _case_told(context: Context, case_id: int) -> _CaseTold:
    with reading(context.store.engine) as connection:
        page = case_page(connection, case_id, context.rule)
        members = [context.store.read(connection, line["id"]) for line in page["cells"]]
    state = context.store.case_state(case_id)
    result = amended(summarize_lines(page["cells"], page["name"]), state)
    plain = [cell.found.cell for cell in members]
    by_name = {cell.name: cell for cell in members}
    karyograms = []
    for cell in shown_cells(result, plain):
        member = by_name[cell.name]
        try:
            karyograms.append(karyogram_of(member, context.imaging.gray(member)))
        except DataError:
            continue
    levels = {line["name"]: line["confirmed"] for line in page["cells"]}
    about = about_models([cell.job for cell in members])
    return _CaseTold(result, plain, karyograms, state, levels, about)


def _worksheet(context: Context, case_id: int) -> str:
    told = _case_told(context, case_id)
    with reading(context.store.engine) as connection:
        people = confirmed_by(connection)
    facts = reviewed_facts(
        laboratory_of(context.root), told.result.case_id or "", told.cells, told.state,
        {name: (level, people.get(name, "")) for name, level in told.levels.items() if level},
    )  # fmt: skip
    return worksheet_html(told.result, told.cells, told.karyograms, facts, about=told.about)


def _download(data: bytes, name: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=kind, headers=headers)


@router.get("/cases/{case_id}/fhir")
def get_fhir(context: InContext, by: By, case_id: int) -> dict[str, Any]:
    """Returns a signed case as a FHIR R5 Bundle: a DiagnosticReport and its Observations."""
    with reading(context.store.engine) as connection:
        page = case_page(connection, case_id, context.rule)
        members = [context.store.read(connection, line["id"]) for line in page["cells"]]
    state = context.store.case_state(case_id)
    result = amended(summarize_lines(page["cells"], page["name"]), state)
    return fhir_bundle(result, state, about=about_models([cell.job for cell in members]))


@router.get("/changes")
def get_changes(context: InContext, by: By, after: int = 0) -> dict[str, Any]:
    """Returns which cells and cases changed after an entry of the trail, for open pages."""
    with reading(context.store.engine) as connection:
        last = connection.execute(select(head.c.seq)).scalar_one()
        if after >= last:
            return {"seq": last, "cells": {}, "cases": []}
        rows = connection.execute(
            select(trail.c.seq, trail.c.cell_id, trail.c.case_id, trail.c.who)
            .where(trail.c.seq > after)
            .order_by(trail.c.seq)
            .limit(1000)
        ).all()
    return {
        "seq": rows[-1].seq if rows else last,
        "cells": {r.cell_id: {"version": r.seq, "who": r.who} for r in rows if r.cell_id},
        "cases": sorted({r.case_id for r in rows if r.case_id}),
    }


@router.get("/figures")
def get_figures(context: InContext, by: By) -> dict[str, Any]:
    """Returns how much of the program's work people had to change, and how long it took."""
    with reading(context.store.engine) as connection:
        return figures(connection)


@router.post("/refresh")
def post_refresh(context: InContext, by: By) -> dict[str, Any]:
    """Imports what ``make predict`` has added to the folder."""
    told = take_in(context.store, context.root)
    return {"added": len(told.added), "renewed": len(told.renewed), "lines": told.lines()}


@router.get("/verify")
def get_verify(context: InContext, by: By, expect: str = "") -> dict[str, Any]:
    """Checks the trail."""
    by.need(ADMINISTRATOR)
    verdict = verify(context.store, expect[:64])
    return {"entries": verdict.entries, "hash": verdict.hash, "problems": verdict.problems}
