"""Routes of cells: what is in them, events, pictures."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.review.events import CellEvent, Corners
from deepacc_d2.review.imaging import masks_of
from deepacc_d2.review.pictures import karyogram_of, record_of
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.lists import list_cells, list_trail, neighbors, search_corrections
from deepacc_d2.review.store.store import ReviewedCell
from deepacc_d2.review.summary import corrected, state_name, summarize, touched
from deepacc_d2.review.web.context import By, InContext

router = APIRouter(tags=["cells"])

ALTERNATIVES = 5
Key = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]


class CellQuery(BaseModel):
    """Which cells are listed."""

    state: Literal["", "new", "in_review", "done", "unfit"] = ""
    case: int | None = None
    words: Annotated[str, Field(max_length=200)] = ""
    start: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=500)] = 200


class CellPost(BaseModel):
    """An event of a cell, what it was made on, and a key of the sender's choice.

    Sent again with the same key, after a lost connection, it is added once.
    """

    model_config = ConfigDict(extra="forbid")

    event: CellEvent
    base: Annotated[int, Field(ge=0)]
    key: Key | None = None


class SplitPost(BaseModel):
    """A chromosome to split by a line, or at its waist where none is given."""

    model_config = ConfigDict(extra="forbid")

    chromosome: int
    line: Corners | None = None


@router.get("/cells")
def get_cells(context: InContext, by: By, wanted: Annotated[CellQuery, Query()]) -> dict[str, Any]:
    """Lists cells, those that need attention first."""
    with reading(context.store.engine) as connection:
        return list_cells(
            connection,
            state=wanted.state,
            case_id=wanted.case,
            words=wanted.words,
            start=wanted.start,
            limit=wanted.limit,
        )


@router.get("/cells/{cell_id}")
def get_cell(context: InContext, by: By, cell_id: int) -> dict[str, Any]:
    """Returns everything about a cell as it is now."""
    return describe(context.store.cell(cell_id))


@router.post("/cells/{cell_id}/events")
def post_event(context: InContext, by: By, cell_id: int, post: CellPost) -> dict[str, Any]:
    """Adds an event and returns the cell after it; 409 if somebody else was faster."""
    cell = context.store.add_cell_event(
        cell_id, post.event, base=post.base, who=by.name, key=post.key
    )
    return describe(cell)


@router.post("/cells/{cell_id}/split")
def post_split(context: InContext, by: By, cell_id: int, post: SplitPost) -> dict[str, Any]:
    """Proposes boxes and outlines for a split event; changes nothing."""
    halves = context.imaging.split(context.store.cell(cell_id), post.chromosome, post.line)
    return {"boxes": halves.boxes, "outlines": halves.outlines}


@router.get("/cells/{cell_id}/neighbors")
def get_neighbors(context: InContext, by: By, cell_id: int) -> dict[str, int | None]:
    """Returns the cells before and after one within its case, by name.

    A page asks when it is ready; the pictures of the next cell are made then, before they are
    asked for.
    """
    with reading(context.store.engine) as connection:
        found = neighbors(connection, cell_id)
    if found["next"] is not None:
        context.imaging.prepare(context.store.cell(found["next"]))
    return found


@router.get("/cells/{cell_id}/trail")
def get_trail(context: InContext, by: By, cell_id: int, after: int = 0) -> list[dict[str, Any]]:
    """Lists the trail's entries of a cell."""
    with reading(context.store.engine) as connection:
        return list_trail(connection, cell_id=cell_id, after=after)


@router.get("/cells/{cell_id}/record")
def get_record(context: InContext, by: By, cell_id: int) -> dict[str, Any]:
    """Returns the cell's record as ``make predict`` writes it."""
    return record_of(context.store.cell(cell_id))


@router.get("/cells/{cell_id}/image.png")
def get_image(context: InContext, by: By, cell_id: int, request: Request) -> Response:
    """Returns the cell's image; one over 4096 pixels a side is shrunk to that."""
    data, tag = context.imaging.png(context.store.cell(cell_id))
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/png", headers=headers)


@router.get("/cells/{cell_id}/strips")
def get_strips(context: InContext, by: By, cell_id: int) -> Response:
    """Returns each chromosome cut out, straightened and turned, by its id."""
    cell = context.store.cell(cell_id)
    # Some hundred kilobytes of plain text: there is nothing in it to check.
    content = json.dumps({"version": cell.version, "strips": context.imaging.strips(cell)})
    return Response(content, media_type="application/json")


@router.get("/cells/{cell_id}/karyogram.{suffix}")
def get_karyogram(
    context: InContext, by: By, cell_id: int, suffix: Literal["png", "svg", "pdf"]
) -> Response:
    """Draws the karyogram as an export does."""
    cell = context.store.cell(cell_id)
    built = karyogram_of(cell, context.imaging.gray(cell))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"karyogram.{suffix}"
        built.save(path)
        data = path.read_bytes()
    kinds = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
    return Response(
        data,
        media_type=kinds[suffix],
        headers={"Content-Disposition": f'attachment; filename="karyogram-{cell_id}.{suffix}"'},
    )


@router.get("/corrections")
def get_corrections(
    context: InContext,
    by: By,
    predicted: Annotated[str, Query(max_length=4)] = "",
    current: Annotated[str, Query(max_length=4)] = "",
    start: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    """Finds chromosomes that are no longer what was predicted; ``none``: no chromosome."""
    with reading(context.store.engine) as connection:
        return search_corrections(connection, predicted, current, start)


def describe(cell: ReviewedCell) -> dict[str, Any]:
    """Returns everything a page shows of a cell."""
    state, found = cell.state, cell.found
    prediction = state.prediction
    by_id = {c.id: c for c in state.chromosomes}
    moved, changed = touched(state), corrected(state)
    chromosomes = []
    for number, told in zip(found.ids, found.cell.chromosomes, strict=True):
        own = by_id[number]
        before = None if own.predicted is None else prediction.chromosomes[own.predicted]
        chromosomes.append(
            {
                "id": number,
                "box": own.box,
                "class": own.name,
                "by_box": CLASSES[told.label],
                "confidence": round(told.confidence, 4),
                "flags": told.flags,
                "turned": own.turned,
                "derivative": own.derivative,
                "outline": own.outline,
                # None where a person drew box or outline instead.
                "mask": masks_of(told),
                "by_person": own.by_person,
                "touched": number in moved,
                "predicted": changed[number][0] if number in changed else own.name,
                "alternatives": [] if before is None else _alternatives(before.probabilities),
            }
        )
    return {
        "id": cell.id,
        "name": cell.name,
        "case_id": cell.case_id,
        "case": prediction.case_id,
        "version": cell.version,
        "width": prediction.width,
        "height": prediction.height,
        "model": (cell.job.get("model") or {}).get("name", ""),
        "view": prediction.view.get("note", ""),
        "state": state_name(state, found),
        "countable": state.countable,
        "can_undo": state.can_undo,
        "can_redo": state.can_redo,
        **summarize(state, found, cell.events),
        "chromosomes": chromosomes,
    }


def _alternatives(probabilities: Any) -> list[tuple[str, float]]:
    """Returns the most probable classes, and ``none``, as the program saw them."""
    names = (*CLASSES, "none")
    order = sorted(range(len(names)), key=lambda k: -float(probabilities[k]))[:ALTERNATIVES]
    return [
        (names[k], round(float(probabilities[k]), 4)) for k in order if probabilities[k] >= 5e-4
    ]
