"""A second call into one folder: results agree with what it says, and none is of another image."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from deepacc_d2.cell import Cell, Mask
from deepacc_d2.files import write_json
from deepacc_d2.prediction.continued import continue_job
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.inputs import Input
from deepacc_d2.prediction.record import to_record
from deepacc_d2.prediction.summary import finish_job


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    return open_folder(tmp_path / "out", {"kind": "prediction"})


def put(folder: OutputFolder, cell: Cell, path: Path, *, there: bool = True) -> None:
    """Makes a finished cell with its pictures, of an image that is there or not."""
    if there:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    cell.path = str(path)
    write_json(folder.record(cell.name), to_record(cell))
    folder.overlay(cell.name).touch()
    folder.karyogram(cell.name).touch()


def case_in_record(folder: OutputFolder, name: str) -> str | None:
    return json.loads(folder.record(name).read_text())["case"]


def test_a_rerun_without_cases_leaves_no_page_of_a_case(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a", "p1"), tmp_path / "p1" / "a.png")
    finish_job(folder, [], about="m")
    assert len(list((folder.root / "cases").iterdir())) == 2
    there = continue_job(folder, [Input(tmp_path / "p1" / "a.png", "a")], write=True)
    assert there.done == {"a"}
    summary = finish_job(folder, [], about="m")
    assert summary.karyotypes == {}
    assert not (folder.root / "cases").exists()
    assert case_in_record(folder, "a") is None


def test_a_rerun_with_other_cases_has_their_pages(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a"), tmp_path / "p1" / "a.png")
    finish_job(folder, [], about="m")
    for case in ("k/1", "k2"):
        continue_job(folder, [Input(tmp_path / "p1" / "a.png", "a", case)], write=True)
        assert set(finish_job(folder, [], about="m").karyotypes) == {case}
    assert sorted(p.name for p in (folder.root / "cases").iterdir()) == ["k2.json", "k2.pdf"]


def test_files_of_others_among_the_pages_stay(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a", "p1"), tmp_path / "p1" / "a.png")
    finish_job(folder, [], about="m")
    (folder.root / "cases" / "letter.docx").touch()
    continue_job(folder, [Input(tmp_path / "p1" / "a.png", "a")], write=True)
    finish_job(folder, [], about="m")
    assert [p.name for p in (folder.root / "cases").iterdir()] == ["letter.docx"]


def test_pictures_without_a_record_go_and_others_stay(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a"), tmp_path / "p1" / "a.png")
    folder.overlay("stopped").touch()
    folder.karyogram("stopped", ".svg").touch()
    finish_job(folder, [], about="m")
    kept = {p.name for kind in ("overlays", "karyograms") for p in (folder.root / kind).iterdir()}
    assert kept == {"a.png"}


def test_another_image_of_the_same_name_is_not_taken_for_done(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a"), tmp_path / "p1" / "a.png")
    other = tmp_path / "p2" / "a.png"
    there = continue_job(folder, [Input(other, "a")], write=True)
    assert there.done == frozenset()
    assert [item.name for item in there.inputs] == ["p2_a"]
    assert there.others == (str(tmp_path / "p1" / "a.png"),)
    assert "kept" in there.line()
    assert "\n" not in there.line()
    put(folder, make_cell("p2_a"), other)
    # Both now, whose names the list would choose otherwise: each is known by its path.
    again = [Input(tmp_path / "p1" / "a.png", "p1_a"), Input(other, "p2_a")]
    there = continue_job(folder, again, write=True)
    assert [item.name for item in there.inputs] == ["a", "p2_a"]
    assert there.done == {"a", "p2_a"}
    assert there.line() == ""


def test_an_image_that_was_moved_is_done(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a"), tmp_path / "gone" / "a.png", there=False)
    moved = tmp_path / "now" / "a.png"
    assert continue_job(folder, [Input(moved, "a")], write=True).done == {"a"}
    assert json.loads(folder.record("a").read_text())["image"]["path"] == str(moved)


def test_results_of_images_that_are_gone_stay_and_are_reported(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a", "p1"), tmp_path / "gone" / "a.png", there=False)
    there = continue_job(folder, [Input(tmp_path / "now" / "b.png", "b")], write=True)
    assert str(tmp_path / "gone" / "a.png") in there.line()
    assert case_in_record(folder, "a") == "p1"
    assert finish_job(folder, [], about="m").cells == 1


def test_only_one_process_writes(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    put(folder, make_cell("a", "p1"), tmp_path / "p1" / "a.png")
    continue_job(folder, [Input(tmp_path / "p1" / "a.png", "a")], write=False)
    assert case_in_record(folder, "a") == "p1"


def test_what_is_done_is_not_kept_in_memory(
    folder: OutputFolder, make_cell: Callable[..., Cell], tmp_path: Path
) -> None:
    ring = tuple((float(n), float(n * n % 97)) for n in range(400))
    inputs = []
    for number in range(60):
        cell = make_cell(f"c{number}", "p1")
        for chromosome in cell.chromosomes:
            chromosome.mask = Mask((ring,))
        put(folder, cell, tmp_path / f"c{number}.png")
        inputs.append(Input(tmp_path / f"c{number}.png", f"c{number}", "p2"))
    size = folder.record("c0").stat().st_size
    tracemalloc.start()
    try:
        there = continue_job(folder, inputs, write=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(there.done) == 60
    # Less than the text of the records, of which a cell in memory takes several times as much.
    assert peak < 60 * size
    # What is not kept is not lost where a record is written anew.
    assert case_in_record(folder, "c7") == "p2"
    assert len(folder.read("c7").chromosomes) == 4
    assert folder.read("c7").chromosomes[0].mask == Mask((ring,))
