from __future__ import annotations

from pathlib import Path

import pytest

from deepacc_d2.data.formats import Defect, ImageRecord, ReadOptions
from deepacc_d2.data.formats.files import image_files
from deepacc_d2.data.formats.record import case_rule, settle_cases
from deepacc_d2.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("images/0012.png", "0012"),
        ("train_labelme/patient7/a.jpg", "patient7"),
        ("images/patient7/a.jpg", "patient7"),
        ("patient7/images/a.jpg", "patient7"),
        ("a.b.jpg", "a.b"),
    ],
)
def test_case_is_the_nearest_telling_folder_else_the_image(name: str, case: str) -> None:
    assert case_rule(ReadOptions())(name) == (case, None)


def test_case_regex_takes_named_groups_or_the_first() -> None:
    both = case_rule(ReadOptions(case_regex=r"(?P<batch>s\d)_(?P<case>p\d+)_"))
    assert both("images/s3_p12_04.png") == ("p12", "s3")
    assert both("images/other.png") == ("images/other", None)
    assert case_rule(ReadOptions(case_regex=r"(\d+)\d$"))("1234.png") == ("123", None)


@pytest.mark.parametrize(("regex", "message"), [("(", "is invalid"), (r"\d+", "has no group")])
def test_unusable_case_regex_is_refused(regex: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        case_rule(ReadOptions(case_regex=regex))


def test_case_regex_that_matches_nothing_is_refused() -> None:
    records = [ImageRecord(Path("a.png"), "images/a.png", case_id="images/a")]
    with pytest.raises(ConfigError, match=r"matches no image.*'images/a'"):
        settle_cases(ReadOptions(case_regex="(z)"), records)


def test_one_folder_for_all_images_is_no_case() -> None:
    records = [ImageRecord(Path(n), n, case_id="lab") for n in ("lab/a.png", "lab/b.png")]
    assert "may share patients" in settle_cases(ReadOptions(), records)
    assert [record.case_id for record in records] == ["a", "b"]


def test_defect_keys_are_unique() -> None:
    assert len({defect.key for defect in Defect}) == len(Defect)


def test_hidden_files_are_no_images(source):
    source.image("a/b.PNG")
    for name in ("a/._b.png", "__MACOSX/a/c.png", ".cache/d.png", "a/readme.txt"):
        source.text(name, "")
    assert [p.name for p in image_files(source.root)] == ["b.PNG"]
