"""Fills the worksheet of a case: one HTML page with everything in it, made for print on A4."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepacc_d2.cell import Cell
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.karyogram.karyogram import Karyogram
from deepacc_d2.karyotype.case import CaseResult
from deepacc_d2.pages import render
from deepacc_d2.worksheet.places import Spot
from deepacc_d2.worksheet.tables import LEVELS

KARYOGRAMS = 2
"""Cells whose karyograms are shown, side by side if there are two."""

_LABELS = {
    "sample": "Sample",
    "tissue": "Tissue",
    "culture": "Culture",
    "stain": "Stain",
    "band_level": "Band level",
    "date": "Date",
}


@dataclass(frozen=True)
class Signed:
    """A signature: ``role`` is ``first`` or ``second``; ``who`` and ``at`` may be empty."""

    role: str
    who: str = ""
    at: str = ""


@dataclass(frozen=True)
class Facts:
    """What the laboratory tells of a case.

    Attributes:
        header: see :data:`deepacc_d2.worksheet.tables.HEADER_FIELDS`.
        spots: by a cell's name.
        signed: signatures that were given, none or those of both readers.
    """

    header: Mapping[str, str] = field(default_factory=dict)
    spots: Mapping[str, Spot] = field(default_factory=dict)
    signed: Sequence[Signed] = ()


def shown_cells(case: CaseResult, cells: Sequence[Cell]) -> list[Cell]:
    """Returns the cells to show karyograms of: the surest one of each of the first two clones.

    Without a clone it is the surest cell that is fit, if there is one.
    """
    by_name = {cell.name: cell for cell in cells if cell.counted and not cell.unfit}
    groups = [[by_name[n] for n in c.names if n in by_name] for c in case.clones[:KARYOGRAMS]]
    if not any(groups):
        groups = [list(by_name.values())]
    return [
        max(group, key=lambda cell: (cell.confidence, len(cell.counted)))
        for group in groups
        if group
    ]


def worksheet_html(
    case: CaseResult,
    cells: Sequence[Cell],
    karyograms: Sequence[Karyogram],
    facts: Facts,
    *,
    about: str,
) -> str:
    """Returns a case's worksheet as HTML: one file, the same each time.

    Args:
        case: of :func:`deepacc_d2.karyotype.case.summarize_case`.
        cells: of the case, any number.
        karyograms: to show, at most :data:`KARYOGRAMS`.
        facts: what the laboratory tells.
        about: one line on the model and the program's version.
    """
    shown = list(karyograms[:KARYOGRAMS])
    header = {key: facts.header.get(key, "") for key in _LABELS}
    levels = [k.band_level for k in shown if k.band_level is not None]
    if not header["band_level"] and levels:
        header["band_level"] = str(levels[0])
    rows = _rows(case, cells, facts)
    return render(
        "deepacc_d2.worksheet",
        "sheet.html.j2",
        case=case,
        header=[(label, header[key]) for key, label in _LABELS.items()],
        rows=rows,
        totals={level: sum(row["done"][level] for row in rows) for level in LEVELS},
        levels=LEVELS,
        pictures=[_picture(k, case) for k in shown],
        signatures=_signatures(facts),
        about=about,
        disclaimer=DISCLAIMER,
    )


def _rows(case: CaseResult, cells: Sequence[Cell], facts: Facts) -> list[dict[str, Any]]:
    """Returns what the table of cells says, in the order of the cells."""
    clones = {name: n for n, clone in enumerate(case.clones, start=1) for name in clone.names}
    others = {d.name: f"differs: {', '.join(d.differs)}" for d in case.disagreeing}
    others |= {e.name: e.reason.removeprefix("unfit: ") for e in case.excluded}
    rows = []
    for n, cell in enumerate(cells, start=1):
        spot = facts.spots.get(cell.name, Spot())
        reached = LEVELS.index(spot.level) if spot.level in LEVELS else -1
        rows.append(
            {
                "number": n,
                "name": cell.name,
                "slide": spot.slide,
                "coordinates": spot.coordinates,
                "count": len(cell.counted),
                "done": {level: place <= reached for place, level in enumerate(LEVELS)},
                "karyotype": cell.karyotype or ("unfit" if cell.unfit else "none"),
                "clone": str(clones.get(cell.name, "")),
                "remark": others.get(cell.name, ""),
                "confidence": f"{cell.confidence:.2f}" if cell.chromosomes else "",
                "reviewer": spot.reviewer,
            }
        )
    return rows


def _signatures(facts: Facts) -> list[Signed]:
    given = {signed.role: signed for signed in facts.signed}
    return [
        given.get(role, Signed(role, facts.header.get(f"{role}_signature", "")))
        for role in ("first", "second")
    ]


def _picture(karyogram: Karyogram, case: CaseResult) -> dict[str, str]:
    """Returns a karyogram as what ``img`` takes, and a line below it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "karyogram.png"
        karyogram.save(path)
        data = base64.b64encode(path.read_bytes()).decode()
    name = karyogram.cell.name
    of = next((c.karyotype for c in case.clones if name in c.names), "")
    caption = f"Cell {name}" + (f", of clone {of}" if of else "")
    return {"source": f"data:image/png;base64,{data}", "caption": caption}
