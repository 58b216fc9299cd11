from __future__ import annotations

from pathlib import Path

import pytest

from deepacc_d2.data.formats import Defect, ImageRecord, ReadOptions
from deepacc_d2.data.formats.copies import original_of
from deepacc_d2.data.formats.record import case_rule, settle_cases

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"


@pytest.mark.parametrize(
    "copy",
    [
        f"cell-7_jpg.rf.{HASH}",
        f"cell-7_png.rf.{HASH[::-1]}",
        "cell-7_jpg.rf.Ab3dEf6hIjKlMnOpQrSt",
        f"slides_original_cell-7.png_{UUID}",
        f"cell-7_{UUID}",
        f"cell-7-{HASH}",
        f"{HASH[:8]}-cell-7",
        f"{UUID}-cell-7",
        f"{HASH[:8]}-cell-7_jpg.rf.{HASH}",
        "cell-7_aug3",
        "cell-7-augmented",
        "cell-7 - Copy (2)",
        "cell-7 copy",
        "cell-7",
    ],
)
def test_marks_of_tools_lead_to_the_original(copy):
    assert original_of(copy) == "cell-7"


@pytest.mark.parametrize(
    "stem",
    ["20240131-cell", "1050221_1", "metaphase (12)", "cell_2", HASH, "deadbeef-1", "p1_c2", "copy"],
)
def test_numbers_dates_and_bare_hashes_are_no_marks(stem):
    assert original_of(stem) == stem


def records(*names):
    rule = case_rule(ReadOptions())
    return [ImageRecord(Path(name), name, case_id=rule(name)[0]) for name in names]


def test_copies_get_one_case_and_the_report_says_so():
    own = records(
        f"train/images/a_jpg.rf.{HASH}.jpg",
        f"test/images/a_jpg.rf.{HASH[::-1]}.jpg",
        "train/images/b.jpg",
    )
    text = settle_cases(ReadOptions(), own)
    assert [record.case_id for record in own] == ["a", "a", "b"]
    assert "2 copies of 1 image(s), by their names, stay together" in text
    assert "may share patients" in text
    assert [[i.defect for i in record.issues] for record in own] == [
        [Defect.COPIES],
        [Defect.COPIES],
        [],
    ]


def test_folders_that_tell_the_case_are_believed():
    own = records(f"p1/1_jpg.rf.{HASH}.jpg", f"p2/1_jpg.rf.{HASH[::-1]}.jpg", "p2/2.jpg")
    assert settle_cases(ReadOptions(), own) == "by parent folder"
    assert [record.case_id for record in own] == ["p1", "p2", "p2"]


def test_a_mark_in_nearly_every_name_is_a_way_of_naming():
    names = [f"images/metaphase_{UUID[:-2]}{n:02d}.png" for n in range(20)]
    own = records(*names)
    settle_cases(ReadOptions(), own)
    assert len({record.case_id for record in own}) == 20


def test_copies_that_an_expression_does_not_match_stay_together_too():
    own = records(f"x/a_jpg.rf.{HASH}.jpg", f"y/a_jpg.rf.{HASH[::-1]}.jpg", "z/p3_1.jpg")
    options = ReadOptions(case_regex=r"(p\d+)_")
    rule = case_rule(options)
    for record in own:
        record.case_id = rule(record.name)[0]
    settle_cases(options, own)
    assert [record.case_id for record in own] == ["a", "a", "p3"]
