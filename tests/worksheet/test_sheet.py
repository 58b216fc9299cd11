"""The worksheet of a case: what is on it, how it is printed, and that nothing breaks it."""

from __future__ import annotations

import builtins
import re
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_image
from deepacc_d2.karyogram import build_karyogram
from deepacc_d2.karyotype.case import summarize_case
from deepacc_d2.worksheet.pdf import NoPrinterError, Worksheets, printer, write_pdf
from deepacc_d2.worksheet.places import Spot
from deepacc_d2.worksheet.sheet import Facts, Signed, shown_cells, worksheet_html


def prints() -> bool:
    """Whether the extra and what it needs of the system are here."""
    try:
        printer()
    except NoPrinterError:
        return False
    return True


needs_printer = pytest.mark.skipif(not prints(), reason="needs the extra worksheet, and Pango")


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.split("<body>")[1])).replace(
        "\u200b", ""
    )


def test_a_case_with_two_clones(make_cell) -> None:  # type: ignore[no-untyped-def]
    cells = [
        *(make_cell(f"a{n}", "47,XX,+8", 0.5 + n / 10) for n in range(2)),
        *(make_cell(f"b{n}", "46,XX") for n in range(3)),
        make_cell("c", "45,XX,-3"),
    ]
    case = summarize_case(cells, case_id="7")
    assert [cell.name for cell in shown_cells(case, cells)] == ["a1", "b0"]
    facts = Facts(
        {"tissue": "blood", "second_signature": "B. Reader"},
        {"a0": Spot("S1", "1, 2", "analyzed", "ada"), "b1": Spot(level="karyotyped")},
        [Signed("first", "ada", "2026-01-02T03:04:05Z")],
    )
    html = worksheet_html(case, cells, [], facts, about="model 1")
    assert html == worksheet_html(case, cells, [], facts, about="model 1")
    text = text_of(html)
    assert "47,XX,+8[2] / 46,XX[3]" in text or "47,XX,+8[2]/ 46,XX[3]" in text
    assert "5 of 6 cells are of a clone" in text
    assert "2 counted, 2 analyzed, 1 karyotyped." in text
    assert "1 a0 S1 1, 2 47 ✓ ✓ ☐ 47,XX,+8 1 0.50 ada" in text
    assert "6 c 45 ☐ ☐ ☐ 45,XX,-3 differs: -3 – 0.90" in text
    assert "Tissue blood" in text
    assert re.search(r"ada 2026-01-02 03:04 First reader", text)
    assert "B. Reader Second reader" in text


@needs_printer
@pytest.mark.parametrize("count", [0, 1, 92, 200])
def test_any_number_of_chromosomes_and_long_names(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    gray = np.full((400, 500), 235, np.uint8)
    found = []
    for n in range(count):
        x, y = int(rng.integers(0, 480)), int(rng.integers(0, 360))
        cv2.rectangle(gray, (x, y), (x + 7, y + 30), 70, -1)
        k = n % 24
        box = (float(x), float(y), float(x + 8), float(y + 31))
        found.append(Chromosome(box, np.eye(25)[k], k, k, 0.9))
    long = "46,XX" + ",+8,-21" * 40
    name = "Ω$x_1$<b>" + "m" * 291
    cell = Cell(name, "", 500, 400, found, long if count else "", long, 0.5, case_id=name)
    karyogram = build_karyogram(gray, cell)
    karyogram.save(tmp_path / "k.png")
    right = cv2.imread(str(tmp_path / "k.png"))[:, 1560:]
    assert (right > 250).all(), "nothing is drawn into the margin"
    cell.karyotype_by_box = "46,XX"
    case = summarize_case([cell], case_id=name)
    html = worksheet_html(case, [cell], [karyogram] if count else [], Facts(), about="m" * 400)
    assert "<b>" not in html.split("<body>")[1]
    write_pdf(html, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@needs_printer
def test_printing_is_repeatable_and_loads_nothing(tmp_path: Path, make_cell) -> None:  # type: ignore[no-untyped-def]
    cells = [make_cell(f"cell {n}", "46,XX") for n in range(60)]
    case = summarize_case(cells, case_id="7")
    html = worksheet_html(case, cells, [], Facts(), about="m")
    write_pdf(html, tmp_path / "a.pdf")
    time.sleep(1.1)  # fonts could hold the second that they were written in
    write_pdf(html, tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    secret = tmp_path / "secret.png"
    cv2.imwrite(str(secret), np.zeros((50, 50), np.uint8))
    write_pdf(html.replace("<h2>", f'<img src="{secret.as_uri()}"><h2>'), tmp_path / "c.pdf")
    assert b"/Image" not in (tmp_path / "c.pdf").read_bytes()


def test_without_a_printer_there_is_html_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: object, **options: object) -> object:
        if name == "weasyprint":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    sheets = Worksheets(tmp_path / "worksheets")
    sheets.write("a", "<p>a</p>")
    sheets.write("b", "<p>b</p>")
    assert sheets.problem == (
        "worksheets are HTML only: for PDF too, run make setup EXTRAS=worksheet"
    )
    assert sorted(p.name for p in (tmp_path / "worksheets").iterdir()) == ["a.html", "b.html"]
    with pytest.raises(NoPrinterError):
        printer()


@needs_printer
def test_printing_leaves_the_reader_of_images_strict(tmp_path: Path) -> None:
    write_pdf("<p>a</p>", tmp_path / "a.pdf")
    image = tmp_path / "half.png"
    picture = np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)
    data = cv2.imencode(".png", picture)[1].tobytes()
    image.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError):
        read_image(image)
