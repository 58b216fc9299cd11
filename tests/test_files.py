from __future__ import annotations

import csv
import io

import pytest

from deepacc_d2.files import csv_text, plain_cell


@pytest.mark.parametrize("text", ["=1+1", "+cmd|x", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
def test_no_text_is_a_formula(text: str) -> None:
    assert plain_cell(text) == f"'{text}"
    rows = list(csv.reader(io.StringIO(csv_text(["name"], [[text, 1.5]]), newline="")))
    assert rows == [["name"], [f"'{text}".replace("\r", "\n"), "1.5"]]


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-3", "a=b", "", -3, 2.5, None])
def test_what_is_none_stays(value: object) -> None:
    assert plain_cell(value) == value
