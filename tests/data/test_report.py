from __future__ import annotations

import json

import pytest

from deepacc_d2.data.convert import convert
from deepacc_d2.data.report import class_table, defect_table, report_text, split_table, summarize


@pytest.fixture
def report(tseng_source, tmp_path):
    boxes = [("A1", (-1, 3, 22, 13)), ("A1", (30, 3, 50, 13)), ("Z9", (1, 2, 3, 4))]
    tseng_source.voc("24_chromosomes_object/annotations/1050001.xml", boxes)
    return convert("tseng2023", tseng_source.root, tmp_path / "out")


def test_counts_per_class_and_image(report, tmp_path):
    summary = summarize(tmp_path / "out")
    assert sum(own["images"] for own in summary["splits"].values()) == 20
    assert sum(own["boxes"] for own in summary["splits"].values()) == 19 * 3 + 2
    assert summary["splits"]["train"]["cases"] == 6
    one = summary["classes"]["1"]
    assert (one["boxes"], one["min"], one["median"], one["max"]) == (21, 1, 1, 2)
    assert (summary["classes"]["X"]["boxes"], summary["classes"]["X"]["min"]) == (19, 0)
    assert summary["classes"]["Y"]["boxes"] == 0
    assert sum(one[split] for split in ("train", "val", "test")) == 21
    assert summary["boxes_per_image"] == {"min": 2, "median": 3, "max": 3}
    assert report["classes"] == summary["classes"]


def test_every_defect_is_named_in_the_files(report, tmp_path):
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved == report
    clamped, unknown = saved["defects"]["box_clamped"], saved["defects"]["unknown_class"]
    assert (clamped["count"], unknown["count"]) == (1, 1)
    assert unknown["found"] == [
        {"name": "24_chromosomes_object/JEPG/1050001.jpg", "detail": "class 'Z9'"}
    ]
    text = (tmp_path / "out" / "report.md").read_text()
    for expected in (
        "| unknown_class",
        "1050001.jpg",
        "fingerprint",
        "| G ",
        "licence: unverified",
    ):
        assert expected in text


def test_tables(report):
    assert split_table(report).splitlines()[-1].split() == ["all", "20", "59"]
    assert len(class_table(report).splitlines()) == 2 + 24 + 1
    assert "box_clamped" in defect_table(report)
    assert defect_table({"defects": {}}) == "no defects"
    assert "case: file stem less its last digit" in report_text(report)


def test_long_lists_are_shortened_in_the_table():
    found = [{"name": f"folder/{n}.jpg", "detail": ""} for n in range(9)]
    entry = {"count": 9, "images": 9, "effect": "noted", "meaning": "m", "found": found}
    table = defect_table({"defects": {"k": entry}})
    assert "+4" in table
    assert "8.jpg" not in table
