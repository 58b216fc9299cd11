"""The end of a job: tables, a report for each case, and what is said of it in the terminal."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from deepacc_d2.cell import Cell
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import UserError
from deepacc_d2.files import whole_file
from deepacc_d2.images.read import read_image
from deepacc_d2.karyogram import Karyogram, build_karyogram, save_case_report
from deepacc_d2.karyotype.case import CaseResult, summarize_case
from deepacc_d2.prediction.folder import OutputFolder, write_whole
from deepacc_d2.prediction.names import safe_name
from deepacc_d2.prediction.tables import write_errors, write_tables

SHOWN = 8


def finish_job(folder: OutputFolder, errors: list[tuple[str, str]], *, about: str) -> int:
    """Writes the summary of all cells together.

    Args:
        folder: the job's.
        errors: path and message of each image that could not be used.
        about: the model, for reports.

    Returns:
        The number of finished cells.

    Raises:
        DataError: a cell's record is damaged.
    """
    write_errors(folder, errors)
    count = write_tables(folder)
    write_cases(folder, about=about)
    return count


def cases_of(folder: OutputFolder) -> dict[str, list[str]]:
    """Returns the names of the cells of each case, for cells whose case is known."""
    cases: dict[str, list[str]] = defaultdict(list)
    for cell in folder.cells():
        if cell.case_id is not None:
            cases[cell.case_id].append(cell.name)
    return dict(sorted(cases.items()))


def write_cases(
    folder: OutputFolder,
    *,
    about: str,
    amend: Callable[[CaseResult], CaseResult] | None = None,
    draw: Callable[[list[Cell]], Karyogram | None] | None = None,
    further: Callable[[str], dict[str, Any]] | None = None,
) -> dict[str, str]:
    """Writes a JSON and a one-page PDF of each case.

    Only one case's cells are in memory at a time.

    Args:
        folder: of the cells.
        about: the model, for reports.
        amend: what a person says otherwise of a case.
        draw: gives the karyogram of a page; :func:`best_karyogram` if not given.
        further: by case, what its JSON tells besides.

    Returns:
        The karyotype of each case.
    """
    cases = cases_of(folder)
    if not cases:
        return {}
    root = folder.root / "cases"
    root.mkdir(exist_ok=True)
    karyotypes: dict[str, str] = {}
    taken: set[str] = set()
    for case_id, members in cases.items():
        name = _free_name(case_id, taken)
        cells = [folder.read(member) for member in members]
        case = summarize_case(cells, case_id=case_id)
        if amend is not None:
            case = amend(case)
        karyotypes[case_id] = case.karyotype
        record = {**case.to_record(), "about": about, "disclaimer": DISCLAIMER}
        record |= further(case_id) if further is not None else {}
        write_whole(root / f"{name}.json", json.dumps(record, indent=1) + "\n")
        with whole_file(root / f"{name}.pdf") as path:
            save_case_report(path, case, cells, (draw or best_karyogram)(cells), about=about)
    return karyotypes


def _free_name(case_id: str, taken: set[str]) -> str:
    """Returns a file name for a case that no other has, in any case of its letters."""
    name = base = safe_name(case_id)
    number = 1
    while name.lower() in taken:
        number += 1
        name = f"{base}_{number}"
    taken.add(name.lower())
    return name


def surest(cells: list[Cell]) -> Cell | None:
    """Returns the surest cell that is fit, of such the one with most chromosomes."""
    found = [cell for cell in cells if cell.counted and not cell.unfit]
    return max(found, key=lambda cell: (cell.confidence, len(cell.counted)), default=None)


def best_karyogram(cells: list[Cell]) -> Karyogram | None:
    """Returns the karyogram of the surest cell that is fit; None without one, or its image."""
    best = surest(cells)
    if best is None:
        return None
    try:
        gray = read_image(best.path).gray
    except UserError:
        return None
    return build_karyogram(gray, best)


def summarize(folder: OutputFolder) -> str:
    """Returns a few lines on a job: how many cells, their karyotypes, what to look at first."""
    karyotypes: Counter[str] = Counter()
    counts: Counter[int] = Counter()
    urgent: list[tuple[float, str]] = []
    unfit: list[str] = []
    n_unfit = 0
    for cell in folder.cells():
        counts[len(cell.counted)] += 1
        if cell.unfit:
            n_unfit += 1
            if len(unfit) < SHOWN:
                unfit.append(f"  {cell.name}: {'; '.join(cell.reasons)}")
            continue
        karyotypes[cell.karyotype] += 1
        flags = ", ".join(flag.replace("_", " ") for flag in cell.flags)
        line = f"  {cell.name}: {cell.karyotype}"
        urgent.append((cell.confidence, f"{line} ({flags})" if flags else line))
        # A job may have any number of cells: only the most urgent are kept.
        urgent = sorted(urgent)[:SHOWN]
    total = sum(counts.values())
    lines = [f"{total} cells in {folder.root}, {counts[46]} of them with 46 chromosomes"]
    common = ", ".join(f"{name} {n}" for name, n in karyotypes.most_common(SHOWN))
    lines.append(f"karyotypes       {common or 'none'}" if total else "no cell")
    if n_unfit:
        lines += [f"unfit            {n_unfit} without a karyotype", *unfit]
    if n_unfit > len(unfit):
        lines.append(f"  and {n_unfit - len(unfit)} more in cells.csv")
    cases = sorted((folder.root / "cases").glob("[!.]*.json"))
    for path in cases[:SHOWN]:
        case = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"case             {case['case_id']}: {case['karyotype'] or 'no karyotype'}")
    if len(cases) > SHOWN:
        lines.append(f"                 and {len(cases) - SHOWN} more in {folder.root / 'cases'}")
    if urgent:
        lines += ["look first at", *(text for _, text in urgent)]
    return "\n".join(lines)
