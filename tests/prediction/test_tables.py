from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from deepacc_d2.cell import UNIDENTIFIED, Cell, Mask
from deepacc_d2.files import write_text
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.record import to_record
from deepacc_d2.prediction.tables import job_tables, write_errors


@pytest.fixture
def folder(tmp_path: Path, make_cell: Callable[..., Cell]) -> OutputFolder:
    made = open_folder(tmp_path, {"kind": "prediction"})
    for cell in (make_cell("b", "k1", 1), make_cell("a", None, 2)):
        write_text(made.record(cell.name), json.dumps(to_record(cell)))
    return made


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_tables(folder: OutputFolder) -> None:
    with job_tables(folder) as add:
        for cell in folder.cells():
            add(cell)


def test_csv(folder: OutputFolder, make_cell: Callable[..., Cell]) -> None:
    write_tables(folder)
    first, second = rows(folder.root / "cells.csv")
    assert (first["cell"], first["case"], second["case"]) == ("a", "", "k1")
    assert (first["count"], first["karyotype"], first["n_1"], first["n_X"]) == (
        *("3", make_cell().karyotype, "2", "1"),
    )
    chromosomes = rows(folder.root / "chromosomes.csv")
    assert [c["class"] for c in chromosomes] == ["1", "1", "X", ""] * 2
    assert chromosomes[1]["flags"] == "touching"
    assert [float(chromosomes[2][k]) for k in ("x0", "y0", "x1", "y1")] == [20, 5, 28.25, 40.5]


def test_coco_is_read_by_the_reference_library(folder: OutputFolder) -> None:
    write_tables(folder)
    coco = COCO(str(folder.root / "coco.json"))
    assert [i["file_name"] for i in coco.dataset["images"]] == ["a.tif", "b.tif"]
    ids = coco.getAnnIds(imgIds=[2])
    found = [(a["category_id"], a["bbox"]) for a in coco.loadAnns(ids)]
    # Boxes as x, y, width, height; what the assignment leaves out is no annotation.
    expected = [(1, [0.0, 5.0, 8.25, 35.5]), (1, [10.0, 5.0, 8.25, 35.5])]
    assert found == [*expected, (23, [20.0, 5.0, 8.25, 35.5])]
    assert coco.loadCats([23])[0]["name"] == "X"


def test_unfit_cells_and_unidentified_chromosomes_are_reported(
    tmp_path: Path, make_cell: Callable[..., Cell]
) -> None:
    folder = open_folder(tmp_path, {"kind": "prediction"})
    cell = make_cell("a")
    cell.status, cell.reasons = "unfit", ("no spread was found in the picture", "two, alas")
    cell.karyotype = ""
    cell.chromosomes[0].assigned = UNIDENTIFIED
    cell.confidence = 1.23456e-7
    write_text(folder.record("a"), json.dumps(to_record(cell)))
    write_tables(folder)
    (row,) = rows(tmp_path / "cells.csv")
    assert (row["status"], row["reasons"]) == (
        *("unfit", "no spread was found in the picture; two, alas"),
    )
    assert (row["count"], row["unidentified"], row["karyotype"]) == ("3", "1", "")
    assert float(row["confidence"]) == 1.2346e-7
    assert [c["class"] for c in rows(tmp_path / "chromosomes.csv")] == ["?", "1", "X", ""]
    found = COCO(str(tmp_path / "coco.json")).dataset["annotations"]
    assert [a.get("unidentified") for a in found] == [True, None, None]
    assert found[0]["category_id"] == cell.chromosomes[0].label + 1


def test_an_empty_job_has_tables(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, {"kind": "prediction"})
    write_tables(folder)
    assert COCO(str(tmp_path / "coco.json")).dataset["annotations"] == []
    assert rows(tmp_path / "cells.csv") == []


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_name_is_no_formula(tmp_path: Path, make_cell: Callable[..., Cell], begin: str) -> None:
    folder = open_folder(tmp_path, {"kind": "prediction"})
    cell = make_cell("a", f"{begin}HYPERLINK(1)")
    cell.path = f"{begin}cmd.png"
    write_text(folder.record("a"), json.dumps(to_record(cell)))
    write_tables(folder)
    write_errors(folder, [(f"{begin}b.png", "is cut")])
    assert rows(tmp_path / "cells.csv")[0]["case"] == f"'{begin}HYPERLINK(1)"
    assert rows(tmp_path / "cells.csv")[0]["image"] == f"'{begin}cmd.png"
    assert {row["case"] for row in rows(tmp_path / "chromosomes.csv")} == {f"'{begin}HYPERLINK(1)"}
    assert rows(tmp_path / "errors.csv")[0]["image"] == f"'{begin}b.png"


def test_errors(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, {"kind": "prediction"})
    write_errors(folder, [("b.png", "is empty, really"), ("a.png", "is cut")])
    found = rows(tmp_path / "errors.csv")
    assert found == [
        {"image": "a.png", "error": "is cut"},
        {"image": "b.png", "error": "is empty, really"},
    ]
    write_errors(folder, [])
    assert not (tmp_path / "errors.csv").exists()


def test_coco_has_what_annotation_tools_need(folder: OutputFolder) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    write_tables(folder)
    coco = COCO(str(folder.root / "coco.json"))
    assert [(i["file_name"], i["path"]) for i in coco.dataset["images"]] == [
        ("a.tif", "slides/a.tif"),
        ("b.tif", "slides/b.tif"),
    ]
    annotations = coco.loadAnns(coco.getAnnIds())
    coco.showAnns(annotations)
    plt.close("all")
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        assert annotation["segmentation"] == [[x, y, x + w, y, x + w, y + h, x, y + h]]
        assert (annotation["area"], annotation["iscrowd"]) == (pytest.approx(w * h, abs=0.006), 0)


def test_masks_are_polygons_and_rle_in_coco(tmp_path: Path, make_cell: Callable[..., Cell]) -> None:
    cell = make_cell("a")
    outer, hole = (
        ((2.0, 6.0), (12.0, 6.0), (12.0, 40.0), (2.0, 40.0)),
        (*((5.0, 10.0), (9.0, 10.0), (9.0, 20.0), (5.0, 20.0)),),
    )
    cell.chromosomes[0].mask = Mask((outer, hole), 0.25)
    folder = open_folder(tmp_path, {"kind": "prediction"})
    with job_tables(folder) as add:
        add(cell)
    coco = COCO(str(tmp_path / "coco.json"))
    first, second, _ = coco.loadAnns(coco.getAnnIds())
    assert first["segmentation"][0] == [2, 6, 12, 6, 12, 40, 2, 40]
    assert first["area"] == 10 * 34 - 4 * 10
    assert first["reconstructed"] == 0.25
    inside = coco_mask.decode(first["rle"])
    assert inside.shape == (200, 300)
    assert (inside[30, 5], inside[15, 7], inside[15, 10], inside[50, 5]) == (1, 0, 1, 0)
    assert "rle" not in second


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/data/x/a.tif", "/data/x/b.tif"], ["a.tif", "b.tif"]),
        (["/data/p1/1.tif", "/data/p2/1.tif"], ["p1/1.tif", "p2/1.tif"]),
        (["/data/p1/1.tif", "/data/2.tif"], ["p1/1.tif", "2.tif"]),
        (["a.tif", ""], ["a.tif", "b"]),
    ],
)
def test_file_names_are_relative_to_the_folder_of_all(
    tmp_path: Path, make_cell: Callable[..., Cell], paths: list[str], names: list[str]
) -> None:
    folder = open_folder(tmp_path, {"kind": "prediction"})
    for name, path in zip("ab", paths, strict=True):
        cell = make_cell(name)
        cell.path = path
        write_text(folder.record(name), json.dumps(to_record(cell)))
    write_tables(folder)
    images = COCO(str(tmp_path / "coco.json")).dataset["images"]
    assert [image["file_name"] for image in images] == names


def test_names_that_are_no_utf8_end_no_table(
    tmp_path: Path, make_cell: Callable[..., Cell]
) -> None:
    folder = open_folder(tmp_path, {"kind": "prediction"})
    cell = make_cell("a", "caf\udce9")
    cell.path = "/data/caf\udce9.tif"
    write_text(folder.record("a"), json.dumps(to_record(cell)))
    write_tables(folder)
    write_errors(folder, [("/data/na\udcefve.tif", "its name is not in UTF-8: rename it")])
    assert rows(tmp_path / "errors.csv")[0]["image"] == r"/data/na\xefve.tif"
    assert rows(tmp_path / "cells.csv")[0]["case"] == r"caf\udce9"
    assert COCO(str(tmp_path / "coco.json")).dataset["images"][0]["file_name"] == "caf\udce9.tif"
