"""Results of a review: the files that ``make predict`` writes, all from one state of the store."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from deepacc_d2.cell import Cell
from deepacc_d2.errors import DataError
from deepacc_d2.files import whole_directory, write_json
from deepacc_d2.karyogram import Karyogram
from deepacc_d2.karyotype.case import CaseResult
from deepacc_d2.prediction.folder import JOB, OutputFolder
from deepacc_d2.prediction.outputs import check_suffixes
from deepacc_d2.prediction.summary import write_cases
from deepacc_d2.prediction.tables import job_tables, write_errors
from deepacc_d2.review.cases import CaseState
from deepacc_d2.review.pictures import image_of, karyogram_of, write_reviewed
from deepacc_d2.review.store.chain import FIRST, now
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.lists import confirmed_by, figures
from deepacc_d2.review.store.store import Store, case_record, case_states
from deepacc_d2.review.store.tables import cases, cells, head, predictions
from deepacc_d2.worksheet.laboratory import Laboratory, with_people
from deepacc_d2.worksheet.sheet import Facts, Signed

KIND = "deepacc_d2 review"


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        cells, cases: how many.
        problems: why a cell has no picture, a line each.
        hash: of the trail's last entry: what :func:`deepacc_d2.review.store.verify.verify` can be
            asked to find later.
    """

    cells: int
    cases: int
    problems: tuple[str, ...]
    hash: str


def check_new(out: Path) -> Path:
    """Returns an output directory as an absolute path.

    Raises:
        DataError: something is there already.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists: choose a new or empty folder")
    return out


def export(
    store: Store,
    out: Path,
    *,
    overlay: bool = True,
    karyogram: Sequence[str] = ("png", "svg"),
    laboratory: Laboratory | None = None,
) -> Exported:
    """Writes a folder as ``make predict`` does, of the cells as they are now.

    The states of all cells are of one moment; other people may go on working.

    Args:
        store: of the review.
        out: new or empty; it appears whole or not at all.
        overlay: draw images with their boxes.
        karyogram: formats of karyograms; none if empty.
        laboratory: what the predicted folder has for worksheets.

    Raises:
        UserError: the folder is there, cannot be written, or the store cannot be read.
    """
    suffixes = check_suffixes(karyogram)
    laboratory = laboratory or Laboratory()
    out = check_new(out)
    with reading(store.engine) as connection:
        last = connection.execute(select(head.c.seq, head.c.hash)).one_or_none()
        numbers = connection.execute(select(cells.c.id).order_by(cells.c.name)).scalars().all()
        by_id = case_states(connection)
        states = {
            row.name: by_id.get(row.id, CaseState())
            for row in connection.execute(select(cases.c.id, cases.c.name))
        }
        told = figures(connection)
        who = confirmed_by(connection)
        jobs = connection.execute(select(predictions.c.job).distinct()).scalars().all()
        kept = [store.read(connection, number) for number in numbers]
    by_name = {cell.name: cell for cell in kept}
    out.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    with whole_directory(out, overwrite=True) as root:
        folder = OutputFolder(root)
        for name in ("cells", "overlays", "karyograms"):
            (root / name).mkdir()
        for cell in kept:
            problem = write_reviewed(folder, cell, overlay=overlay, karyogram=suffixes)
            problems += [problem] if problem else []
        write_errors(folder, [])
        of_cases: dict[str, list[Cell]] = defaultdict(list)
        with job_tables(folder) as add_to_tables:
            for written in folder.cells():
                add_to_tables(written)
                if written.case_id is not None:
                    of_cases[written.case_id].append(written)

        def draw(cell: Cell) -> Karyogram | None:
            try:
                return karyogram_of(by_name[cell.name], image_of(by_name[cell.name]))
            except DataError:
                return None

        def facts(case_id: str, of_case: list[Cell]) -> Facts:
            levels = {c.name: by_name[c.name].state.confirmed for c in of_case}
            people = {n: (level, who.get(n, "")) for n, level in levels.items() if level}
            state = states.get(case_id, CaseState())
            return reviewed_facts(laboratory, case_id, of_case, state, people)

        models = [json.loads(job) for job in jobs]
        written_cases = write_cases(
            folder,
            dict(sorted(of_cases.items())),
            about=about_models(models),
            amend=lambda result: amended(result, states.get(result.case_id or "", CaseState())),
            draw=draw,
            further=lambda name: {"review": case_record(states[name])},
            facts=facts,
        )
        problems += [written_cases.problem] if written_cases.problem else []
        job: dict[str, Any] = {
            "kind": KIND,
            "created": now(),
            "trail": {"entries": last.seq if last else 0, "hash": last.hash if last else FIRST},
            "figures": told,
            "jobs": models,
        }
        write_json(root / JOB, job)
    done = len(written_cases.karyotypes)
    return Exported(len(kept), done, tuple(problems), str(job["trail"]["hash"]))


def reviewed_facts(
    laboratory: Laboratory,
    case_id: str,
    cells: Sequence[Cell],
    state: CaseState,
    people: Mapping[str, tuple[str, str]],
) -> Facts:
    """Returns what the worksheet of a case in review is filled with.

    Args:
        laboratory: what the predicted folder has.
        case_id: of the case.
        cells: of it.
        state: of it, with its signatures.
        people: by cell that is confirmed as it is, its level and who confirmed it.
    """
    told = laboratory.facts(case_id, cells)
    signed = [Signed(s.role, s.who, s.at) for s in state.signatures]
    return Facts(told.header, with_people(told.spots, people), signed)


def about_models(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Returns the line that reports say of the models that predicted."""
    names = sorted({str((job.get("model") or {}).get("name", "")) for job in jobs} - {""})
    return f"{', '.join(names)}; reviewed" if names else "reviewed"


def amended(result: CaseResult, state: CaseState) -> CaseResult:
    """Puts a person's karyotype and signatures into what the cells of a case give."""
    notes = []
    karyotype = result.karyotype
    if state.karyotype:
        notes.append(
            f"Karyotype by {state.given_by}: {state.reason} (the cells give "
            f"{result.karyotype or 'none'})."
        )
        karyotype = state.karyotype
    for signature in state.signatures:
        notes.append(f"Signed by {signature.who} as {signature.role} reader, {signature.at[:16]}.")
    return replace(result, karyotype=karyotype, notes=(*notes, *result.notes))
