"""What a laboratory's tables may say, and what is said of tables that are something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.worksheet.laboratory import Laboratory, laboratory_of
from deepacc_d2.worksheet.places import name_pattern, spot_of
from deepacc_d2.worksheet.tables import read_cells, read_headers


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_heads_as_spreadsheets_save_them(tmp_path: Path, encoding: str, delimiter: str) -> None:
    rows = [["Tissue", "CASE", "Band level"], ["bone  märrow", "7", ""], ["", "", ""]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    assert read_headers(write(tmp_path / "h.csv", text, encoding)) == {
        "7": {"tissue": "bone märrow"}
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column case"),
        ("tissue\nblood\n", "has no column case in its first line: its columns are case, sample"),
        ("case,name\n7,Ada\n", "has a column 'name': a worksheet has .*no patient's data"),
        ("case,date,date\n7,1,2\n", "has the column date twice"),
        ("case,tissue\n,blood\n", "line 2: no case"),
        ("case,tissue\n7,blood\n7,marrow\n", "line 3: case 7 is there twice"),
        ("case,tissue\n7,a,b,c\n", "line 2: 4 values for 2 columns"),
        ("case\n" + '"' + "x" * 200_000, "is no CSV file"),
    ],
)
def test_a_wrong_table_of_cases_is_told_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_headers(write(tmp_path / "h.csv", text))
    assert "\n" not in str(error.value)
    assert str(tmp_path / "h.csv") in str(error.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_headers(tmp_path / "none.csv")


def test_cells_by_file_or_stem(tmp_path: Path) -> None:
    table = write(
        tmp_path / "c.csv",
        "file,slide,x,y,level,reviewer\nA\\a.01.tif,S1,1.5,2,analyzed,ada\nb,,,,,\nc,S2,,7,,\n",
    )
    assert read_cells(table) == {
        "a.01": {"slide": "S1", "coordinates": "1.5, 2", "level": "analyzed", "reviewer": "ada"},
        "b": {},
        "c": {"slide": "S2", "coordinates": "?, 7"},
    }
    with pytest.raises(DataError, match="line 2: level 'seen' is none of counted, analyzed"):
        read_cells(write(tmp_path / "d.csv", "file,level\na,seen\n"))
    with pytest.raises(DataError, match=r"a\.png is there twice"):
        read_cells(write(tmp_path / "d.csv", "file\na.tif\na.png\n"))


@pytest.mark.parametrize(
    ("name", "slide", "coordinates"),
    [
        ("slide3_x12.5_y103.2.tif", "slide3", "12.5, 103.2"),
        ("17-204-B X 45 Y-3.png", "17-204-B", "45, -3"),
        ("17-204 x45y30.png", "17-204", "45, 30"),
        ("8129A.001.tif", "", ""),
        ("max_x1", "", ""),
    ],
)
def test_places_in_file_names(name: str, slide: str, coordinates: str) -> None:
    spot = spot_of(f"/somewhere/{name}", None, name_pattern(None))
    assert (spot.slide, spot.coordinates) == (slide, coordinates)


def test_a_pattern_of_ones_own_and_what_comes_first(tmp_path: Path) -> None:
    pattern = name_pattern(r"(?P<slide>\d+[A-Z])\.(?P<y>\d+)")
    path = tmp_path / "8129A.013.tif"
    assert spot_of(str(path), None, pattern).coordinates == "?, 013"
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[282], info[283], info[296] = 100_000.0, 100_000.0, 3  # 0.1 micrometers
    info[286], info[287] = 1.25, 0.5  # centimeters
    Image.new("L", (8, 8)).save(path, tiffinfo=info)
    assert spot_of(str(path), {}, pattern).coordinates == "12.500, 5.000 mm"
    told = spot_of(str(path), {"coordinates": "K 7", "slide": "S"}, pattern)
    assert (told.slide, told.coordinates) == ("S", "K 7")
    for text, message in (("(", "no regular expression"), ("a", "needs groups"),
                          ("(?P<z>a)", "needs groups")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            name_pattern(text)


def test_a_laboratory_is_kept_with_the_results(tmp_path: Path, make_cell) -> None:  # type: ignore[no-untyped-def]
    heads = write(tmp_path / "h.csv", "case,stain\n7,GTG\n")
    rows = write(tmp_path / "c.csv", "file,slide\na.tif,S1\n")
    Laboratory.read(heads, rows).save(tmp_path)
    found = laboratory_of(tmp_path).facts("7", [make_cell("a", "46,XX"), make_cell("b", "46,XX")])
    assert found.header == {"stain": "GTG"}
    assert [found.spots[name].slide for name in "ab"] == ["S1", ""]
    assert laboratory_of(tmp_path / "nowhere") == Laboratory()
    (tmp_path / "laboratory.json").write_text("[]")
    with pytest.raises(DataError, match=re.escape("laboratory.json is damaged")):
        laboratory_of(tmp_path)
