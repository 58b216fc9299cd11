from __future__ import annotations

import os
from pathlib import Path

import pytest

from deepacc_d2.data.formats import Defect, ReadOptions, read_tseng2023
from deepacc_d2.data.formats.tseng2023 import case_of
from deepacc_d2.errors import DataError


@pytest.mark.parametrize(
    ("stem", "case"),
    [
        ("1050221", "105022"),
        ("1050221_1", "105022"),
        ("104062", "10406"),
        ("unknow001", "unknow"),
        ("unknow127", "unknow"),
        ("7", "7"),
    ],
)
def test_case_is_the_stem_less_its_last_digit(stem, case):
    assert case_of(stem) == case


def test_every_defect_is_survived_and_reported(tseng_source):
    source = tseng_source
    folder = "24_chromosomes_object"
    source.tseng(["unknow003"])  # in no list
    source.image(f"{folder}/JEPG/1060011.jpg")  # no annotation
    source.voc(f"{folder}/annotations/1060021.xml")  # no image, not listed
    source.image(f"{folder}/JEPG/1060031.jpg")
    source.text(f"{folder}/annotations/1060031.xml", "<annotation><object>")
    with (source.root / "test.txt").open("a") as file:
        file.write("1069999\n1050001\n")  # no such file; is in train.txt as well
    result = read_tseng2023(source.root, ReadOptions())
    assert len(result.records) == 21
    assert {(i.defect, i.name) for i in result.issues} == {
        (Defect.MISSING_IMAGE, "1069999"),
        (Defect.MISSING_IMAGE, "1060021"),
        (Defect.NO_ANNOTATION, f"{folder}/JEPG/1060011.jpg"),
        (Defect.BAD_ANNOTATION, "1060031.xml"),
    }
    own = {r.path.stem: r for r in result.records}
    assert [i.defect for i in own["unknow003"].issues] == [Defect.UNLISTED]
    assert [i.defect for i in own["1050001"].issues] == [Defect.LISTED_TWICE]
    assert own["1050001"].split == "test"
    assert own["1050011"].split == "train"


def test_tables_give_the_abnormality_and_check_the_count(tseng_source):
    head = "filename,chromosome numbers,description (abnormal chromosome-pair)\r\n"
    tseng_source.text("number_abnormalities.csv", head + "1050001.jpg,3,X\r\n")
    tseng_source.text("structural_abnormalities.csv", head + '1050002.jpg,46,"8,17"\r\n')
    tseng_source.text("normal.csv", head + "1050011.jpg,3,\r\n1050012.jpg,unknow,\r\n")
    result = read_tseng2023(tseng_source.root, ReadOptions())
    own = {r.path.stem: r for r in result.records}
    assert own["1050001"].extra == {
        "abnormality": {"kind": "number", "count": 3, "description": "X"}
    }
    assert own["1050002"].extra["abnormality"]["description"] == "8,17"
    assert own["1050011"].extra == {}
    told = {stem: [i.defect for i in r.issues] for stem, r in own.items() if r.issues}
    assert told == {"1050002": [Defect.COUNT_DIFFERS]}


def test_missing_folder_is_named(source):
    with pytest.raises(DataError, match=r"JEPG is missing: FORMAT=tseng2023 expects"):
        read_tseng2023(source.root, ReadOptions())


@pytest.mark.skipif("DEEPACC_TSENG2023" not in os.environ, reason="DEEPACC_TSENG2023 is not set")
def test_published_images():
    result = read_tseng2023(Path(os.environ["DEEPACC_TSENG2023"]), ReadOptions())
    assert result.records
    for record in result.records:
        assert 35 <= len(record.boxes) <= 60
        edges = [box.xyxy for box in record.boxes]
        assert min(min(e[:2]) for e in edges) >= -1
        assert max(e[2] for e in edges) <= (record.width or 0) + 1
