"""What a program gets: a karyogram, an overlay and a case's page of any cell."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from defusedxml import ElementTree

from deepacc_d2.cell import LEFT_OUT, UNFIT, UNIDENTIFIED, Cell, Chromosome
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.disclaimer import DISCLAIMER
from deepacc_d2.errors import ConfigError
from deepacc_d2.karyogram import build_karyogram, draw_overlay, save_case_report
from deepacc_d2.karyogram.report import by_urgency, review_points
from deepacc_d2.karyotype.case import summarize_case


def chromosome(box, index, *, assigned=None, flags=(), confidence=0.9):
    probabilities = np.full(25, 0.1 / 24)
    probabilities[index] = 0.9
    assigned = index if assigned is None else assigned
    return Chromosome(tuple(box), probabilities, index, assigned, confidence, flags)


def cell_of(chromosomes, name="cell 1", karyotype="46,XX", size=(200, 200)):
    return Cell(name, "", *size, list(chromosomes), karyotype, karyotype, 0.8)


@pytest.fixture(scope="module")
def drawn():
    gray, record = render_metaphase(SyntheticConfig(seed=5, box_margin=3, loss_rate=0.0), 0, 0)
    found = []
    for annotation in record["annotations"]:
        x, y, w, h = annotation["bbox"]
        found.append(chromosome((x, y, x + w, y + h), annotation["category_id"] - 1))
    found[0].flags = ("low_confidence",)
    found[4].flags = ("touching", "reassigned")
    found[9].assigned, found[9].flags = LEFT_OUT, ("left_out",)
    return gray, cell_of(found, karyotype=record["karyotype"], size=gray.shape[::-1])


@pytest.fixture(scope="module")
def karyogram(drawn):
    return build_karyogram(*drawn)


def test_svg_is_xml_with_labels_as_text(karyogram, tmp_path):
    karyogram.save(tmp_path / "k.svg")
    root = ElementTree.parse(tmp_path / "k.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {*(str(n) for n in range(1, 23)), "X", "Y"} <= texts
    assert {"cell 1", karyogram.cell.karyotype, "low confidence", "Not placed"} <= texts
    assert {"touches another chromosome", "class changed by the assignment"} <= texts
    images = list(root.iter("{http://www.w3.org/2000/svg}image"))
    assert len(images) == len(karyogram.cell.chromosomes)


def test_png_is_1600_wide_white_and_the_same_each_time(karyogram, tmp_path):
    karyogram.save(tmp_path / "a.png")
    karyogram.save(tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = cv2.imread(str(tmp_path / "a.png"))
    assert pixels.shape[1] == 1600
    assert abs(pixels.shape[0] - karyogram.layout.height) <= 1
    assert (pixels == 255).all(axis=2).mean() > 0.75


def cells_of_a_case(karyogram, count):
    """A cell's copies under other names; every third lacks its last chromosome."""
    cells = []
    for number in range(count):
        own = list(karyogram.cell.chromosomes)[: -1 if number % 3 == 0 else None]
        flags = ("count_not_46",) if number % 3 == 0 else ()
        cell = cell_of(own, name=f"cell {number}", karyotype="46,XX")
        cell.flags, cell.confidence = flags, 0.5 + 0.3 * number / count
        cells.append(cell)
    return cells


@pytest.mark.parametrize("count", [1, 500])
def test_page_of_a_case_is_one_page(karyogram, tmp_path, count):
    cells = cells_of_a_case(karyogram, count)
    case = summarize_case(cells, case_id="case 7")
    save_case_report(tmp_path / "a.pdf", case, cells, [karyogram], about="model")
    data = (tmp_path / "a.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert b"/Count 1 " in data
    assert b"/CreationDate" not in data


def test_page_of_a_case_tells_its_karyotype_cells_and_what_to_look_at(karyogram, tmp_path):
    cells = cells_of_a_case(karyogram, 60)
    name = "<script>7</script> & $x$"
    case = summarize_case(cells, case_id=name)
    for file in ("a.svg", "b.svg"):
        save_case_report(tmp_path / file, case, cells, [], about="DeepACC-D2, best.ckpt")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {name, case.karyotype, DISCLAIMER, "DeepACC-D2, best.ckpt"} <= set(texts)
    shown = [text for text in texts if text.startswith("cell ") and ":" not in text]
    more = [int(t.split()[1]) for t in texts if t.startswith("and ") and t.endswith("cells.csv")]
    assert len(shown) + more[-1] == 60
    wanted = by_urgency(case, cells)
    assert shown == [cell.name for cell in wanted[: len(shown)]]
    points = review_points(case, cells)
    assert [t for t in texts if t in points] == points[:6]
    assert more[0] == len(points) - 6


def test_page_of_a_case_without_cells(tmp_path):
    case = summarize_case([], case_id=None)
    save_case_report(tmp_path / "a.svg", case, [], [], about="")
    assert "no karyotype: no cell could be counted" in (tmp_path / "a.svg").read_text()


def test_overlay_is_rgb_and_large_enough_to_read(drawn):
    gray, cell = drawn
    picture = draw_overlay(gray, cell)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert max(picture.shape) >= 1000
    assert np.ptp(picture.astype(int), axis=2).max() > 100, "boxes are colored"


def test_a_cell_without_chromosomes_has_its_empty_places(tmp_path):
    gray = np.full((80, 100), 240, np.uint8)
    karyogram = build_karyogram(gray, cell_of([], karyotype=""))
    assert sum(place.strip is None for s in karyogram.layout.slots for place in s.places) == 46
    karyogram.save(tmp_path / "k.svg")
    assert "no chromosome found" in (tmp_path / "k.svg").read_text()
    assert draw_overlay(gray, karyogram.cell).shape[2] == 3


def test_another_suffix_is_refused_in_one_line(karyogram, tmp_path):
    with pytest.raises(ConfigError, match=r"k\.gif: a picture ends in \.png, \.svg, \.pdf"):
        karyogram.save(tmp_path / "k.gif")
    assert not list(tmp_path.iterdir())


def test_names_in_any_letters_are_drawn_without_a_warning(tmp_path, recwarn):
    gray = np.full((80, 100), 240, np.uint8)
    cell = cell_of(
        [chromosome((10, 10, 40, 60), 3)], name="细胞 $a_1$ <b> & \\frac", karyotype="45,X"
    )
    build_karyogram(gray, cell).save(tmp_path / "k.svg")
    root = ElementTree.parse(tmp_path / "k.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert cell.name in texts
    build_karyogram(gray, cell).save(tmp_path / "k.png")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (1500, 2)])
def test_images_of_any_size_are_drawn(shape):
    gray = np.full(shape, 200, np.uint8)
    cell = cell_of([chromosome((0, 0, shape[1], shape[0]), 1), chromosome((-9, -9, -5, -5), 22)])
    assert draw_overlay(gray, cell).shape[2] == 3
    assert len(build_karyogram(gray, cell).strips) == 2


def test_other_pixels_are_refused():
    cell = cell_of([])
    for pixels in (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            build_karyogram(pixels, cell)
        with pytest.raises(ValueError, match="uint8"):
            draw_overlay(pixels, cell)


def test_unidentified_chromosomes_have_a_row_of_their_own(drawn, tmp_path):
    gray, cell = drawn
    own = [chromosome(c.box, c.label, assigned=c.assigned) for c in cell.chromosomes]
    for n in (3, 20):
        own[n].assigned, own[n].flags = UNIDENTIFIED, ("unidentified",)
    karyogram = build_karyogram(gray, cell_of(own, karyotype="46,XX,inc"))
    layout = karyogram.layout
    assert [place.strip for place in layout.unidentified] == [3, 20]
    assert [place.strip for place in layout.left_out] == [9]
    shown = [p.strip for slot in layout.slots for p in slot.places if p.strip is not None]
    assert sorted([*shown, 3, 20, 9]) == list(range(len(own)))
    lowest = max(slot.y for slot in layout.slots)
    assert all(lowest < place.y0 < place.y1 < layout.left_out_y for place in layout.unidentified)
    assert all(place.y0 > layout.left_out_y for place in layout.left_out)
    karyogram.save(tmp_path / "k.svg")
    root = ElementTree.parse(tmp_path / "k.svg").getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"?", "2 unidentified", "counted", "Not placed", "not counted"} <= texts
    assert draw_overlay(gray, karyogram.cell).shape[2] == 3


def test_an_unfit_cell_shows_its_reason_instead_of_a_karyotype(drawn, tmp_path):
    gray, cell = drawn
    own = cell_of(list(cell.chromosomes), karyotype="")
    own.status, own.draft = UNFIT, "46,XX"
    own.reasons = ("no spread was found in the picture",)
    own.flags = ("abnormal", "count_not_46")
    build_karyogram(gray, own).save(tmp_path / "k.svg")
    text = (tmp_path / "k.svg").read_text()
    assert "no karyotype" in text
    assert "unfit: no spread was found in the picture" in text
    assert "46,XX" not in text
    case = summarize_case([own], case_id="7")
    assert review_points(case, [own]) == [
        "cell 1: not counted, unfit: no spread was found in the picture"
    ]
    save_case_report(tmp_path / "a.svg", case, [own], [], about="model")
    page = (tmp_path / "a.svg").read_text()
    assert "no karyotype: no cell could be counted" in page
    assert "46,XX" not in page
