"""What lists and tables show of a cell in review, and what a person changed in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from deepacc_d2.karyotype.iscn import parse_karyotype, read_karyotype
from deepacc_d2.prediction.record import class_of, significant
from deepacc_d2.review import events as ev
from deepacc_d2.review.recount import Recount
from deepacc_d2.review.state import CellState

NEW, IN_REVIEW, DONE, UNFIT = "new", "in_review", "done", "unfit"
STATES = (NEW, IN_REVIEW, DONE, UNFIT)
"""Of a cell: nobody did anything, somebody did, confirmed as it is, cannot be karyotyped."""


def state_name(state: CellState, found: Recount) -> str:
    """Returns which of :data:`STATES` a cell is in."""
    if found.cell.unfit:
        return UNFIT
    if state.confirmed:
        return DONE
    return IN_REVIEW if state.edits else NEW


def summarize(state: CellState, found: Recount, events: Iterable[Any] = ()) -> dict[str, Any]:
    """Returns what is shown of a cell without its chromosomes, as plain values.

    Args:
        state: of the cell.
        found: computed from it.
        events: all of the cell, for the seconds of work.
    """
    cell = found.cell
    # Only where there are some: summaries from before there were any stay what they are.
    derivatives = found.derivatives.tolist() if found.derivatives.any() else None
    by_box, unidentified_by_box = cell.karyotype_by_box, 0
    if by_box:
        _, unidentified_by_box = read_karyotype(by_box)
    return {
        "status": cell.status,
        "reasons": list(cell.reasons),
        "karyotype": cell.karyotype,
        "draft": cell.draft,
        "karyotype_by_box": by_box,
        "predicted_karyotype": state.prediction.karyotype,
        "count": len(cell.counted),
        "unidentified": len(cell.unidentified),
        "markers": found.markers,
        "counts": cell.counts().tolist(),
        "counts_by_box": parse_karyotype(by_box).tolist(),
        "unidentified_by_box": unidentified_by_box,
        "confidence": significant(cell.confidence),
        "flags": list(cell.flags),
        "confirmed": state.confirmed,
        "edits": state.edits,
        "touched": len(touched(state)),
        "turned": sum(c.turned for c in state.chromosomes),
        "seconds": round(sum(e.seconds for e in events if isinstance(e, ev.Confirm)), 1),
        "notes": list(state.notes),
        **({} if derivatives is None else {"derivatives": derivatives}),
    }


def corrected(state: CellState) -> dict[int, tuple[str, str]]:
    """Returns, by id, what each chromosome was predicted as and is now, where that differs.

    Empty where there is none: a box that was left out, deleted, joined or split, or not found.
    """
    now = {c.id: c for c in state.chromosomes}
    told: dict[int, tuple[str, str]] = {}
    for n, predicted in enumerate(state.prediction.chromosomes):
        told[n + 1] = (class_of(predicted) or "", "")
    for number, chromosome in now.items():
        told[number] = (told.get(number, ("", ""))[0], chromosome.name or "")
    return {number: pair for number, pair in sorted(told.items()) if pair[0] != pair[1]}


def touched(state: CellState) -> set[int]:
    """Returns the ids of chromosomes whose class, box or existence a person changed."""
    moved = {c.id for c in state.chromosomes if c.moved}
    return moved | set(corrected(state))


def difference(before: CellState, after: CellState, found: tuple[Recount, Recount]) -> Any:
    """Returns what an event changed, before and after, as plain values for the trail.

    Args:
        before, after: the states.
        found: what was computed from them.
    """
    old = {c.id: c for c in before.chromosomes}
    new = {c.id: c for c in after.chromosomes}
    changed = sorted(n for n in old.keys() | new.keys() if old.get(n) != new.get(n))
    return tuple(
        {
            "karyotype": each.cell.karyotype or each.cell.draft,
            "status": each.cell.status,
            "confirmed": state.confirmed,
            "chromosomes": {str(n): _plain(content[n]) if n in content else None for n in changed},
        }
        for state, each, content in zip((before, after), found, (old, new), strict=True)
    )


def _plain(chromosome: Any) -> dict[str, Any]:
    content = asdict(chromosome)
    content["box"] = list(chromosome.box)
    if not chromosome.derivative:
        del content["derivative"]
    content["outline"] = [list(point) for point in chromosome.outline]
    return {"class": chromosome.name, **content}
