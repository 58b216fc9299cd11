from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from deepacc_d2.data.formats.files import (
    AmbiguousNameError,
    FileIndex,
    files_under,
    image_files,
)
from deepacc_d2.errors import DataError


def index(source):
    return FileIndex(image_files(source.root), source.root)


def test_linked_folders_are_entered_once_and_loops_end(source, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    source.image("a.png")
    source.image("b.png").rename(elsewhere / "b.png")
    (source.root / "link").symlink_to(elsewhere)
    (source.root / "again").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(source.root)
    (source.root / "self").symlink_to("self")
    names = [path.relative_to(source.root).as_posix() for path in image_files(source.root)]
    assert names == ["a.png", "again/b.png"]


def test_suffixes_count_in_either_case(source):
    for name in ("a.JSON", "b.json", "c.jsonl"):
        source.text(name, "{}")
    assert [path.name for path in files_under(source.root, ".json")] == ["a.JSON", "b.json"]


def test_an_unreadable_folder_is_named(source, monkeypatch):
    source.image("p1/a.png")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "p1":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"folder .*p1 cannot be read \(Permission denied\)"):
        image_files(source.root)


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("my cell.png", "my%20cell.png"),
        ("100%.png", "100%25.png"),
        ("a%20b.png", "a%20b.png"),
        ("cell.PNG", "cell.png"),
        ("Zelle.png", "zelle.PNG"),
        (unicodedata.normalize("NFD", "Müller.png"), unicodedata.normalize("NFC", "Müller.png")),
        (unicodedata.normalize("NFC", "Müller.png"), "M%C3%BCller.PNG"),
        ("sub/cell.png", "C:\\Users\\me\\sub\\cell.png"),
        ("sub/cell.png", "/data/upload/7/cell.png"),
        ("up/my cell.png", "/data/local-files/?d=somewhere/up/my%20cell.png"),
    ],
)
def test_names_of_tools_are_found(source, file, asked):
    path = source.image(file)
    source.image("other.png")
    found = index(source).find(asked, [source.root])
    assert found is not None
    assert found.samefile(path)


def test_the_exact_name_wins_and_several_alike_are_named(source):
    one, two = source.image("p1/cell.png"), source.image("p2/CELL.png")
    names = index(source)
    assert names.find("cell.png", []) == one
    assert names.find("CELL.png", []) == two
    assert names.find("p2/cell.png", []) == two
    with pytest.raises(AmbiguousNameError, match=r"p1/cell\.png and .*p2/CELL\.png: rename"):
        names.find("Cell.png", [])
    assert names.find("none.png", []) is None
    assert names.find("x" * 400 + ".png", [source.root]) is None
    assert names.find("a\0.png", [source.root]) is None


def test_a_name_from_elsewhere_never_takes_what_another_means(source):
    path = source.image("p2/1.png")
    assert index(source).find("p1/1.png", [source.root]) == path
    assert index(source).find("p1/1.png", [source.root], {path.resolve()}) is None
