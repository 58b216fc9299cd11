"""Conventions of a page: standing, ghosts, derivatives, markers, scale bar, headings that wrap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree

from deepacc_d2.cell import UNIDENTIFIED, Cell, Chromosome
from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.karyogram import build_karyogram
from deepacc_d2.karyogram.heading import WIDTH, heading_of
from deepacc_d2.karyogram.layout import lay_out
from deepacc_d2.karyogram.marks import MARKS
from deepacc_d2.karyogram.rows_below import in_lines
from deepacc_d2.karyogram.strip import Strip
from deepacc_d2.karyogram.typesetting import set_in, shortened, width_of, wrapped


def strip(name: str, length: int = 100, centromere: float = 0.4, **more: object) -> Strip:
    dark = np.full((length, 20), 0.5, np.float32)
    return Strip(name, True, dark, 1.0, centromere, 0.9, cut=True, **more)  # type: ignore[arg-type]


def counts_of(strips: list[Strip]) -> np.ndarray:
    return np.bincount([CLASSES.index(s.name) for s in strips], minlength=24)


def test_chromosomes_stand_on_a_line() -> None:
    strips = [strip("1", 160, 0.5), strip("1", 150, 0.3), strip("3", 130, 0.4), strip("13", 70)]
    layout = lay_out(strips, counts_of(strips), align="line")
    for row in {slot.y for slot in layout.slots}:
        lowest = [p.y1 for slot in layout.slots if slot.y == row for p in slot.places]
        assert np.ptp(lowest) < 1e-6
        assert max(lowest) < row
    place = layout.slots[0].places[0]
    assert place.waist == pytest.approx((place.y0 + place.y1) / 2)


def test_a_ghost_has_the_size_of_its_homolog() -> None:
    strips = [strip("5", 143, 0.3), strip("6", 60)]
    slots = {s.name: s for s in lay_out(strips, counts_of(strips)).slots}
    own, ghost = slots["5"].places
    assert (own.strip, ghost.strip) == (0, None)
    assert ghost.y0 == pytest.approx(own.y0)
    assert ghost.y1 == pytest.approx(own.y1)
    assert ghost.x1 - ghost.x0 == pytest.approx(own.x1 - own.x0)


def test_a_derivative_stands_at_the_right_of_its_homolog() -> None:
    strips = [strip("9", derivative=True), strip("9"), strip("22")]
    slots = {s.name: s for s in lay_out(strips, counts_of(strips)).slots}
    assert [p.strip for p in slots["9"].places] == [1, 0]
    assert [p.strip for p in slots["22"].places] == [2, None]


def test_markers_have_a_row_and_a_scale_bar_its_length(tmp_path: Path) -> None:
    gray = np.full((200, 300), 235, np.uint8)
    gray[40:120, 50:62] = 60
    gray[40:100, 150:162] = 60
    p = np.eye(25)[2]
    cell = Cell("a", "", 300, 200, [
        Chromosome((50.0, 40.0, 62.0, 120.0), p, 2, 2, 0.9),
        Chromosome((150.0, 40.0, 162.0, 100.0), p, 2, UNIDENTIFIED, 0.9, ("marker",)),
    ], "2,?,+mar", "", 0.5)  # fmt: skip
    karyogram = build_karyogram(gray, cell, pixel_size=0.1)
    karyogram.save(tmp_path / "k.svg")
    root = ElementTree.parse(tmp_path / "k.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"mar", "1 mar", "counted"} <= texts
    (bar,) = (t for t in texts if t.endswith("µm"))
    length = float(bar.split()[0]) / 0.1 * karyogram.layout.scale
    assert 40 < length <= 200
    build_karyogram(gray, cell).save(tmp_path / "n.svg")
    assert "µm" not in (tmp_path / "n.svg").read_text()


@pytest.mark.parametrize("room", [1500.0, 1220.0])
def test_a_legend_of_all_marks_keeps_within_its_margins(room: float) -> None:
    widths = [42 + width_of(mark.meaning, 14) for mark in MARKS.values()] + [150.0]
    lines = in_lines(widths, room)
    assert [number for line in lines for number, _ in line] == list(range(len(widths)))
    assert all(sum(width for _, width in line) - 22 <= room for line in lines)
    assert len(lines) == 2, "there is room for two above the foot"
    assert in_lines([], room) == [[]]


KARYOTYPE = "61<3n>,XX," + ",".join(f"+{n},-{n + 1}" for n in range(1, 21))


@pytest.mark.parametrize("karyotype", ["46,XX", KARYOTYPE, KARYOTYPE * 20, "x" * 900])
@pytest.mark.parametrize("name", ["a", "m" * 300])
def test_a_heading_keeps_within_its_margins(karyotype: str, name: str) -> None:
    cell = Cell(name, "", 9, 9, [], karyotype, karyotype[:-1], 0.5, case_id=name)
    heading = heading_of(cell, ("about 400 bands",))
    for line in heading.lines:
        assert width_of(line.text, line.size, bold=line.bold) <= WIDTH
        assert line.size >= 14
        assert line.y < heading.height
    for y in {line.y for line in heading.lines}:
        of_line = [width_of(i.text, i.size, bold=i.bold) for i in heading.lines if i.y == y]
        assert sum(of_line) <= WIDTH
    if karyotype == KARYOTYPE:
        text = "".join(line.text for line in heading.lines)
        assert karyotype in text, "nothing of it is lost"


def test_texts_are_cut_and_wrapped_by_their_width() -> None:
    assert width_of("mmm", 10) > width_of("iii", 10)
    assert width_of("abc", 20) == pytest.approx(2 * width_of("abc", 10))
    cut = shortened("abcdef" * 50, 10, 100)
    assert cut.endswith("…")
    assert width_of(cut, 10) <= 100 < width_of(cut + "ab", 10) + 10
    lines = wrapped("47,XX,+8/46,XX and more", 10, 60, 9)
    assert "".join(lines).replace(" ", "") == "47,XX,+8/46,XXandmore"
    assert all(width_of(line, 10) <= 60 for line in lines)
    assert set_in("46,XX", 500, largest=30, smallest=10, lines=1) == (30, ["46,XX"])
