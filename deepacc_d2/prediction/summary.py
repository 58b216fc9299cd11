"""The end of a job: tables, a report for each case, and what is said of it in the terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from deepacc_d2.cell import Cell
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import UserError
from deepacc_d2.files import whole_file, write_json
from deepacc_d2.images.read import read_image
from deepacc_d2.images.resolution import read_scale
from deepacc_d2.karyogram import Karyogram, build_karyogram, save_case_report
from deepacc_d2.karyotype.case import CaseResult, summarize_case
from deepacc_d2.prediction.continued import remove_stale
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.names import safe_name
from deepacc_d2.prediction.tables import job_tables, write_errors
from deepacc_d2.worksheet.laboratory import laboratory_of
from deepacc_d2.worksheet.pdf import Worksheets
from deepacc_d2.worksheet.sheet import Facts, shown_cells, worksheet_html

SHOWN = 8
# Takes the place of the probabilities of a case's chromosomes, which no report needs.
_NOT_KEPT = np.zeros(0)


@dataclass(frozen=True)
class JobSummary:
    """What came out of a job.

    Attributes:
        cells: finished ones.
        karyotypes: of the cases, by their ids.
        text: a few lines for the terminal.
    """

    cells: int
    karyotypes: dict[str, str]
    text: str


@dataclass(frozen=True)
class CasesWritten:
    """What was written of cases.

    Attributes:
        karyotypes: by case.
        problem: why there is no PDF of worksheets, a line; empty if there is.
    """

    karyotypes: dict[str, str]
    problem: str = ""


def finish_job(folder: OutputFolder, errors: list[tuple[str, str]], *, about: str) -> JobSummary:
    """Writes what covers all cells together: tables and reports of cases.

    Each record is read once, and again where a case shows its karyogram. Cells of no case are in
    memory one at a time; those of cases are kept until their reports are written, without their
    probabilities and masks: some 50 kB a cell instead of 350.

    Args:
        folder: the job's.
        errors: path and message of each image that could not be used.
        about: the model, for reports.

    Raises:
        DataError: a cell's record is damaged.
    """
    write_errors(folder, errors)
    overview = _Overview()
    cases: dict[str, list[Cell]] = defaultdict(list)
    with job_tables(folder) as add_to_tables:
        for cell in folder.cells():
            add_to_tables(cell)
            overview.add(cell)
            if cell.case_id is not None:
                for chromosome in cell.chromosomes:
                    chromosome.probabilities, chromosome.mask = _NOT_KEPT, None
                cases[cell.case_id].append(cell)

    def draw(cell: Cell) -> Karyogram | None:
        return karyogram_of(folder.read(cell.name), folder.alignment())

    written = write_cases(folder, dict(sorted(cases.items())), about=about, draw=draw)
    remove_stale(folder, case_names(written.karyotypes))
    text = overview.text(folder, written.karyotypes)
    text += f"\n{written.problem}" if written.problem else ""
    return JobSummary(overview.total, written.karyotypes, text)


def write_cases(
    folder: OutputFolder,
    cases: dict[str, list[Cell]],
    *,
    about: str,
    amend: Callable[[CaseResult], CaseResult] | None = None,
    draw: Callable[[Cell], Karyogram | None] | None = None,
    further: Callable[[str], dict[str, Any]] | None = None,
    facts: Callable[[str, list[Cell]], Facts] | None = None,
) -> CasesWritten:
    """Writes a JSON, a one-page PDF and a worksheet of each case.

    Args:
        folder: of the cells.
        cases: the cells of each case; their probabilities are not looked at.
        about: the model, for reports.
        amend: what a person says otherwise of a case.
        draw: gives a cell's karyogram; :func:`karyogram_of` if not given.
        further: by case, what its JSON says besides.
        facts: by case, what its worksheet is filled with; the folder's ``laboratory.json`` if not
            given.

    Returns:
        The karyotype of each case, and why there is no PDF of worksheets.
    """
    root = folder.root / "cases"
    sheets = Worksheets(folder.root / "worksheets")
    facts = facts or laboratory_of(folder.root).facts
    draw = draw or partial(karyogram_of, align=folder.alignment())
    karyotypes: dict[str, str] = {}
    for (case_id, cells), name in zip(cases.items(), case_names(cases), strict=True):
        root.mkdir(exist_ok=True)
        case = summarize_case(cells, case_id=case_id)
        if amend is not None:
            case = amend(case)
        karyotypes[case_id] = case.karyotype
        record = {**case.to_record(), "about": about, "disclaimer": DISCLAIMER}
        record |= further(case_id) if further is not None else {}
        write_json(root / f"{name}.json", record, indent=1)
        drawn = map(draw, shown_cells(case, cells))
        shown = [karyogram for karyogram in drawn if karyogram is not None]
        with whole_file(root / f"{name}.pdf") as path:
            save_case_report(path, case, cells, shown, about=about)
        sheets.write(name, worksheet_html(case, cells, shown, facts(case_id, cells), about=about))
    return CasesWritten(karyotypes, sheets.problem)


def case_names(cases: Iterable[str]) -> list[str]:
    """Returns the name of each case's files."""
    taken: set[str] = set()
    return [_free_name(case_id, taken) for case_id in cases]


def _free_name(case_id: str, taken: set[str]) -> str:
    """Returns a file name for a case that no other has, in any case of its letters."""
    name = base = safe_name(case_id)
    number = 1
    while name.lower() in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name.lower())
    return name


def karyogram_of(cell: Cell, align: str = "centromere") -> Karyogram | None:
    """Returns the karyogram of a cell; None where its image is gone.

    Args:
        cell: any.
        align: see :func:`deepacc_d2.karyogram.build_karyogram`.
    """
    try:
        gray = read_image(cell.path).gray
    except UserError:
        return None
    pixel_size = read_scale(cell.path).pixel_size
    return build_karyogram(gray, cell, align=align, pixel_size=pixel_size)


class _Overview:
    """What is said of a job: how many cells, their karyotypes, what to look at first."""

    def __init__(self) -> None:
        self.karyotypes: Counter[str] = Counter()
        self.counts: Counter[int] = Counter()
        self.urgent: list[tuple[float, str]] = []
        self.unfit: list[str] = []
        self.n_unfit = 0

    @property
    def total(self) -> int:
        """Cells that were added."""
        return sum(self.counts.values())

    def add(self, cell: Cell) -> None:
        """Counts a cell."""
        self.counts[len(cell.counted)] += 1
        if cell.unfit:
            self.n_unfit += 1
            if len(self.unfit) < SHOWN:
                self.unfit.append(f"  {cell.name}: {'; '.join(cell.reasons)}")
            return
        self.karyotypes[cell.karyotype] += 1
        flags = ", ".join(flag.replace("_", " ") for flag in cell.flags)
        line = f"  {cell.name}: {cell.karyotype}"
        self.urgent.append((cell.confidence, f"{line} ({flags})" if flags else line))
        # A job may have any number of cells: only the most urgent are kept.
        self.urgent = sorted(self.urgent)[:SHOWN]

    def text(self, folder: OutputFolder, cases: dict[str, str]) -> str:
        """Returns a few lines; ``cases`` are the karyotypes of the cases."""
        total = self.total
        cells = "1 cell" if total == 1 else f"{total} cells"
        lines = [f"{cells} in {folder.root}, {self.counts[46]} of them with 46 chromosomes"]
        common = ", ".join(f"{name} {n}" for name, n in self.karyotypes.most_common(SHOWN))
        lines.append(f"karyotypes       {common or 'none'}" if total else "no cell")
        if self.n_unfit:
            lines += [f"unfit            {self.n_unfit} without a karyotype", *self.unfit]
        if self.n_unfit > len(self.unfit):
            lines.append(f"  and {self.n_unfit - len(self.unfit)} more in cells.csv")
        for case_id, karyotype in list(cases.items())[:SHOWN]:
            lines.append(f"case             {case_id}: {karyotype or 'no karyotype'}")
        if len(cases) > SHOWN:
            lines.append(
                f"                 and {len(cases) - SHOWN} more in {folder.root / 'cases'}"
            )
        if self.urgent:
            lines += ["look first at", *(text for _, text in self.urgent)]
        return "\n".join(lines)
