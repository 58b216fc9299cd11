from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepacc_d2.cell import Cell, Mask
from deepacc_d2.files import write_text
from deepacc_d2.prediction import summary
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.record import to_record
from deepacc_d2.prediction.summary import finish_job


def put(folder: OutputFolder, cell: Cell) -> None:
    write_text(folder.record(cell.name), json.dumps(to_record(cell)))


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    return open_folder(tmp_path / "out", {"kind": "prediction"})


def test_cases_get_files_that_stay_in_the_folder(
    folder: OutputFolder, make_cell: Callable[..., Cell]
) -> None:
    # Imported by itself, it has Pillow read damaged files in all tests that follow.
    if importlib.util.find_spec("weasyprint") is None:
        pytest.skip("the extra worksheet is missing")
    cases = ("../../outside", "a/b", "A/B", "10.5")
    for number, case in enumerate(cases):
        put(folder, make_cell(f"c{number}", case))
    put(folder, make_cell("alone", None))
    summary = finish_job(folder, [], about="model 1")
    assert set(summary.karyotypes) == set(cases)
    files = sorted(folder.root.parent.rglob("*.pdf"))
    sheets = [path for path in files if path.parent == folder.root / "worksheets"]
    files = [path for path in files if path not in sheets]
    assert len(files) == len(sheets) == 4
    assert sorted(p.stem for p in files) == sorted(p.stem for p in sheets)
    assert all(path.parent == folder.root / "cases" for path in files)
    # No two differ only in the case of letters: some file systems do not.
    assert len({path.name.lower() for path in files}) == 4
    told = [json.loads(p.read_text()) for p in (folder.root / "cases").glob("*.json")]
    assert sorted(record["case_id"] for record in told) == sorted(cases)
    assert {record["about"] for record in told} == {"model 1"}


def test_a_report_shows_the_surest_cell_whose_image_is_there(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    image = tmp_path / "seen.png"
    cv2.imwrite(str(image), np.full((200, 300), 220, dtype=np.uint8))
    cell = make_cell("seen", "k")
    cell.path = str(image)
    put(folder, cell)
    finish_job(folder, [], about="m")
    with_picture = (folder.root / "cases" / "k.pdf").stat().st_size
    image.unlink()
    finish_job(folder, [], about="m")
    assert (folder.root / "cases" / "k.pdf").stat().st_size < with_picture


def test_what_is_said(folder: OutputFolder, make_cell: Callable[..., Cell]) -> None:
    for number in range(20):
        cell = make_cell(f"c{number:02d}", "k" if number < 2 else None)
        cell.confidence = number / 20
        put(folder, cell)
    summary = finish_job(folder, [("x.png", "is cut")], about="m")
    text = summary.text
    assert summary.cells == 20
    assert text.startswith("20 cells in ")
    karyotype = make_cell().karyotype
    assert f"{karyotype} 20" in text
    assert "case             k: " in text
    # The least sure ones, and no more than fit on a screen.
    assert f"c00: {karyotype} (count)" in text
    assert "c07" in text
    assert "c08" not in text
    assert (folder.root / "errors.csv").read_text().splitlines()[1] == "x.png,is cut"


def test_unfit_cells_are_reported_with_their_reason_and_have_no_place_in_a_case(
    folder: OutputFolder, make_cell: Callable[..., Cell]
) -> None:
    for number in range(12):
        cell = make_cell(f"c{number:02d}", "k")
        cell.status, cell.reasons = "unfit", ("no spread was found in the picture",)
        cell.karyotype = cell.karyotype_by_box = ""
        put(folder, cell)
    summary = finish_job(folder, [], about="m")
    assert summary.karyotypes == {"k": ""}
    case = json.loads((folder.root / "cases" / "k.json").read_text())
    assert case["excluded"][0] == {
        "name": "c00",
        "karyotype": "",
        "reason": "unfit: no spread was found in the picture",
    }
    lines = summary.text.splitlines()
    assert "unfit            12 without a karyotype" in lines
    assert "  c07: no spread was found in the picture" in lines
    assert "  and 4 more in cells.csv" in lines
    assert "karyotypes       none" in lines
    assert "look first at" not in lines


def test_an_empty_job_is_told_of(folder: OutputFolder) -> None:
    summary = finish_job(folder, [], about="m")
    assert summary.cells == 0
    assert "0 cells" in summary.text


def test_records_are_read_once_and_those_shown_again(
    folder: OutputFolder, make_cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        cell = make_cell(f"c{number}", "k" if number % 2 else None)
        cell.confidence = number / 10
        put(folder, cell)
    read: Counter[str] = Counter()
    whole = Path.read_bytes

    def counted(path: Path) -> bytes:
        read[path.name] += path.parent.name == "cells"
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert finish_job(folder, [], about="m").cells == 6
    once = {f"c{i}.json": 1 for i in range(6)}
    # c5 is the surest cell of the only case.
    assert {name: n for name, n in read.items() if n} == once | {"c5.json": 2}


def test_cells_wait_for_their_case_without_masks_and_are_shown_with_them(
    folder: OutputFolder, make_cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    outline = Mask((((1.0, 1.0), (9.0, 1.0), (9.0, 9.0)),))
    for number in range(3):
        cell = make_cell(f"c{number}", "k")
        for chromosome in cell.chromosomes:
            chromosome.mask = outline
        put(folder, cell)
    waiting: list[Cell] = []
    shown: list[Cell] = []
    summarize = summary.summarize_case

    def seen(cells: list[Cell], **options: object) -> object:
        waiting.extend(cells)
        return summarize(cells, **options)

    monkeypatch.setattr(summary, "summarize_case", seen)
    monkeypatch.setattr(summary, "karyogram_of", lambda cell, align: shown.append(cell))
    finish_job(folder, [], about="m")
    assert len(waiting) == 3
    assert {c.mask for cell in waiting for c in cell.chromosomes} == {None}
    assert len(shown) == 1
    assert {c.mask for c in shown[0].chromosomes} == {outline}
