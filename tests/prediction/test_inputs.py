"""Which images are found, under which names, in which cases."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.prediction.inputs import Input, list_images
from deepacc_d2.prediction.names import safe_name, unique_names


@pytest.fixture
def folder(tmp_path):
    """Two patients, hidden files, other files and a job's output."""
    for name in (
        "p1/cell10.tif",
        "p1/cell2.JPG",
        "p1/notes.txt",
        "p2/deep/cell1.png",
        "p2/cell2.bmp",
        ".hidden/a.png",
        "p1/._cell2.jpg",
        "out/overlay.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def _relative(inputs: list[Input], root: Path) -> list[str]:
    return [i.path.relative_to(root).as_posix() for i in inputs]


def test_a_folder_is_searched_with_all_below_it_in_order_of_numbers(folder):
    found = list_images(folder, out=folder / "out")
    assert _relative(found, folder) == [
        "p1/cell2.JPG",
        "p1/cell10.tif",
        "p2/cell2.bmp",
        "p2/deep/cell1.png",
    ]
    assert [i.name for i in found] == ["p1_cell2", "cell10", "p2_cell2", "cell1"]
    assert {i.case_id for i in found} == {None}
    assert _relative(list_images(str(folder)), folder)[0] == "out/overlay.png"


def test_a_file_is_taken_whatever_its_suffix(folder):
    (folder / "p1/cell").touch()
    assert list_images(folder / "p1/cell") == [Input(folder / "p1/cell", "cell")]


def test_patterns(folder):
    assert _relative(list_images(f"{folder}/p1/*"), folder) == ["p1/cell2.JPG", "p1/cell10.tif"]
    assert _relative(list_images(f"{folder}/p2/**/*.png"), folder) == ["p2/deep/cell1.png"]
    # A pattern of folders means what is in them, each file once.
    assert len(list_images(f"{folder}/p*")) == 4
    assert len(list_images(f"{folder}/p*/**", out=folder / "out")) == 4
    assert len(list_images(f"{folder}/**/*.png", out=folder / "out")) == 1


def test_a_name_with_the_marks_of_a_pattern_is_a_file_first(folder):
    (folder / "p1/[a].png").touch()
    (folder / "p1/a.png").touch()
    assert _relative(list_images(f"{folder}/p1/[a].png"), folder) == ["p1/[a].png"]


def test_several_arguments_keep_their_order_and_no_file_comes_twice(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = list_images(["p2", Path("p1/cell10.tif"), "p1/../p2/cell2.bmp"])
    assert [i.path.as_posix() for i in found] == [
        "p2/cell2.bmp",
        "p2/deep/cell1.png",
        "p1/cell10.tif",
    ]


def test_links_to_folders_are_not_followed_and_loops_end(folder):
    (folder / "p1/loop").symlink_to(folder)
    (folder / "p1/link.png").symlink_to(folder / "p2/deep/cell1.png")
    assert len(list_images(folder / "p1")) == 3


@pytest.mark.parametrize(
    ("images", "what"),
    [
        ("nothing.png", r"nothing\.png is not there"),
        ("*.webp", "matches nothing"),
        ("p1/n*", "matches only what is no image"),
        ("empty", r"no image in folder empty: it needs \.jpg, "),
        ("", "names no image"),
        ("a\0b", "names no image"),
        ([], "no image is named"),
        ("x" * 5000, "cannot be looked at"),
    ],
)
def test_nothing_found_is_reported_in_one_line(folder, monkeypatch, images, what):
    monkeypatch.chdir(folder)
    Path("empty").mkdir()
    with pytest.raises(ConfigError, match=what) as error:
        list_images(images)
    assert "\n" not in str(error.value)


def test_a_folder_of_thousands_is_not_asked_for_file_by_file(folder, monkeypatch):
    many = folder / "many"
    many.mkdir()
    for i in range(3000):
        (many / f"{i}.png").touch()
    asked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *a, **k: (asked.append(a), stat(*a, **k))[1])
    found = list_images(many)
    monkeypatch.undo()
    assert [i.name for i in found] == [str(i) for i in range(3000)]
    assert len(asked) < 50


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cell 1", "cell_1"),
        ("..", "image"),
        ("../../etc/passwd", "_._.._etc_passwd"),
        ("", "image"),
        ("C:\\x", "C__x"),
        ("a\0b\nc", "a_b_c"),
        ("con", "_con"),
        ("LPT1.scan", "_LPT1.scan"),
        ("console", "console"),
        ("-rf", "_rf"),
        (".hidden", "_hidden"),
        ("染色体Ä", "染色体Ä"),
        ("A\u0308", "Ä"),
        ("evil\u202egnp", "evil_gnp"),
        ("end.", "end"),
    ],
)
def test_safe_names(text, name):
    assert safe_name(text) == name


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=130), st.text(max_size=8)), max_size=6))
def test_names_of_anything_are_unique_and_stay_in_the_folder(pieces):
    paths = [
        PurePosixPath(folder.replace("/", "") or "f", stem + ".png") for folder, stem in pieces
    ]
    names = unique_names(paths)
    assert names == unique_names(paths)
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert len(name.encode()) <= 190
        assert len(name) <= 100
        assert not re.search(r'[/\\\0:*?"<>|\s]', name)
        assert PurePosixPath(name).parts == (name,)
        assert name[0] not in ".-"
        assert name not in ("", ".", "..")


def test_alike_names_are_told_apart_step_by_step():
    paths = [PurePosixPath(p) for p in ("a/1.png", "a/1.tif", "b/1.png", "c/A_1.png", "d/2.png")]
    names = unique_names(paths)
    # a_1 three times, since Windows takes A_1 for it; folder and suffix tell them apart.
    assert names == ["a_1_png", "a_1_tif", "b_1", "c_A_1_png", "2"]
    long = unique_names([PurePosixPath("x" * 150 + "1"), PurePosixPath("x" * 150 + "2")])
    assert long[0] != long[1]
    assert max(map(len, long)) <= 100


def test_the_folder_is_the_case(folder):
    found = list_images([f"{folder}/p1", f"{folder}/p2"], cases="folder")
    assert [i.case_id for i in found] == ["p1", "p1", "p2", "deep"]
    for name in ("x/cells/1.png", "y/cells/1.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    found = list_images(f"{folder}/[xy]/cells", cases="folder")
    assert [i.case_id for i in found] == ["x/cells", "y/cells"]


def _table(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "cases.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_cases_of_a_table_in_any_dialect(folder, encoding, delimiter):
    rows = [("Case", "Note", "File"), ("Müller", "", "cell10"), ("B", "x", "p1\\cell2.JPG")]
    text = "\r\n".join(delimiter.join(row) for row in rows) + "\r\n\r\n"
    found = list_images(folder / "p1", cases=_table(folder, text, encoding))
    assert [(i.name, i.case_id) for i in found] == [("cell2", "B"), ("cell10", "Müller")]


def test_files_of_a_table_by_path_name_and_stem(folder):
    text = (
        f"file,case\n{folder}/p1/cell2.JPG,a\n./p2/cell2.bmp,b\ncell10.tif,c\ndeep/cell1,\n"
        "of_another_day.png,z\ncell10,c\n"
    )
    found = list_images(folder, cases=_table(folder, text), out=folder / "out")
    assert [i.case_id for i in found] == ["a", "c", "b", None]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name,case\ncell2,a\n", "no columns file and case"),
        ("", "no columns file and case"),
        ("file,case\ncell10,a\n", r"1 of 2 images have no row, such as .*cell2\.JPG"),
        ("file,case\ncell10,a\ncell2,b\ncell10.tif,c\n", "lines 2 and 4: .* 'a' and 'c'"),
        ("file,case\ncell10\n", "line 2: no file and case"),
        ("file,case\n,b\n", "line 2: no file and case"),
    ],
)
def test_bad_tables_are_refused_in_one_line(folder, text, what):
    with pytest.raises(DataError, match=what) as error:
        list_images(folder / "p1", cases=_table(folder, text))
    assert "\n" not in str(error.value)


def test_a_name_that_two_images_have_is_refused(folder):
    (folder / "p2/cell2.JPG").touch()
    text = "file,case\ncell2.JPG,a\n"
    with pytest.raises(DataError, match=r"line 2: cell2\.JPG names .* write the path"):
        list_images([folder / "p1", folder / "p2"], cases=_table(folder, text))


def test_a_table_that_is_not_there(folder):
    with pytest.raises(ConfigError, match="give `folder` or a CSV file"):
        list_images(folder / "p1", cases=folder / "none.csv")
    with pytest.raises(ConfigError, match="give `folder` or a CSV file"):
        list_images(folder / "p1", cases=folder / "p1")
