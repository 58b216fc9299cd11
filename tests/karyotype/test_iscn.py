from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepacc_d2.chromosomes import class_index
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.counts import (
    Abnormality,
    checked_counts,
    count_classes,
    is_abnormal,
    numerical_abnormalities,
    sex_complement,
)
from deepacc_d2.karyotype.iscn import (
    differences,
    format_karyotype,
    parse_karyotype,
    ploidy_level,
    read_karyotype,
)


def counts(x: int, y: int, level: int = 2, **autosomes: int) -> np.ndarray:
    """Counts with so many copies of each autosome, but those given as _21=3."""
    result = np.full(24, level)
    for name, copies in autosomes.items():
        result[int(name[1:]) - 1] = copies
    result[22:] = x, y
    return result


KNOWN = [
    (counts(2, 0), "46,XX"),
    (counts(1, 1), "46,XY"),
    (counts(1, 0), "45,X"),
    (counts(2, 1), "47,XXY"),
    (counts(1, 2), "47,XYY"),
    (counts(3, 0), "47,XXX"),
    (counts(2, 2), "48,XXYY"),
    (counts(4, 1), "49,XXXXY"),
    (counts(0, 1), "45,Y"),
    (counts(0, 0), "44,?"),
    (counts(1, 1, _21=3), "47,XY,+21"),
    (counts(2, 0, _18=3), "47,XX,+18"),
    (counts(2, 0, _22=1), "45,XX,-22"),
    (counts(2, 0, _8=3, _21=1), "46,XX,+8,-21"),
    (counts(2, 0, _5=1, _8=3), "46,XX,-5,+8"),
    (counts(2, 0, _8=4), "48,XX,+8,+8"),
    (counts(2, 0, _7=0), "44,XX,-7,-7"),
    (counts(2, 1, _21=3), "48,XXY,+21"),
    (counts(1, 0, level=1), "23<1n>,X"),
    (counts(1, 0, level=1, _4=2, _6=2, _21=2), "26<1n>,X,+4,+6,+21"),
    (counts(3, 0, level=3), "69<3n>,XXX"),
    (counts(2, 1, level=3), "69<3n>,XXY"),
    (counts(3, 0, level=3, _21=2), "68<3n>,XXX,-21"),
    (counts(3, 0, level=3, _20=4, _22=4), "71<3n>,XXX,+20,+22"),
    (
        counts(2, 2, level=4, _1=3, _3=3, _5=3, _8=5, _21=3),
        "89<4n>,XXYY,-1,-3,-5,+8,-21",
    ),
    (counts(2, 2, level=4), "92<4n>,XXYY"),
]


@pytest.mark.parametrize(("found", "text"), KNOWN)
def test_known_karyotypes_are_written_and_read(found: np.ndarray, text: str) -> None:
    assert format_karyotype(found) == text
    assert parse_karyotype(text).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("total", "level"),
    [
        *((1, 1), (23, 1), (34, 1), (35, 2), (46, 2), (57, 2), (58, 3), (80, 3)),
        *((81, 4), (103, 4), (104, 5), (126, 5), (127, 6)),
    ],
)
def test_ploidy_levels_change_where_iscn_says(total: int, level: int) -> None:
    assert ploidy_level(total) == level


COUNTS = st.lists(st.integers(0, 5), min_size=24, max_size=24)
NEAR_DIPLOID = st.lists(st.sampled_from([1, 2, 2, 2, 2, 3, 4]), min_size=24, max_size=24)


@settings(max_examples=80, deadline=None)
@given(given_counts=COUNTS | NEAR_DIPLOID)
def test_what_is_written_is_read_back(given_counts: list[int]) -> None:
    text = format_karyotype(given_counts)
    assert parse_karyotype(text).tolist() == given_counts
    if not text:
        assert sum(given_counts) == 0
        return
    # The text by itself: number, then Xs and Ys, then autosomes in order.
    head, sex, *changes = text.split(",")
    assert int(re.match(r"\d+", head)[0]) == sum(given_counts)
    assert (sex.count("X"), sex.count("Y")) == tuple(given_counts[22:])
    numbers = [int(change[1:]) for change in changes]
    assert numbers == sorted(numbers)
    level = int(match[1]) if (match := re.search(r"<(\d+)n>", head)) else 2
    signed = [1 if change[0] == "+" else -1 for change in changes]
    assert 22 * level + sum(given_counts[22:]) + sum(signed) == sum(given_counts)


@settings(max_examples=80, deadline=None)
@given(text=st.text(alphabet="0123456789XY,+-<>n?[]/ abc", max_size=20))
def test_any_other_text_is_refused_or_means_one_thing(text: str) -> None:
    try:
        found = parse_karyotype(text)
    except DataError:
        return
    assert parse_karyotype(format_karyotype(found)).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("XX", "number of chromosomes"),
        ("46", "sex chromosomes"),
        ("46,", "sex chromosomes"),
        ("46,YX", "sex chromosomes"),
        ("46,xx", "sex chromosomes"),
        ("46,XX,", "no gain or loss"),
        ("46,XX,21", "no gain or loss"),
        ("47,XX,+X", "no gain or loss"),
        ("47,XX,+23", "no gain or loss"),
        ("47,XX,+mar", "no gain or loss"),
        ("46,XX,t(9;22)(q34;q11)", "no gain or loss"),
        ("46,XX,+21", "add up to 47"),
        ("47,XX", "add up to 46"),
        ("47,XX,+21,-22", "add up to 46"),
        ("46,XX,-21,+8", "has to come before"),
        ("46,XX,+8,-8", "both gained and lost"),
        ("43,XX,-8,-8,-8", "more 8 are lost"),
        ("046,XX", "number of chromosomes"),
        ("0,?", "number of chromosomes"),
        ("46, XX", "sex chromosomes"),
        ("47,XY,+21[8]/46,XY[12]", "no gain or loss"),
        ("46<2>,XX", "number of chromosomes"),
        ("46<3n>,XX", "add up to 68"),
        ("٤٦,XX", "number of chromosomes"),
    ],
)
def test_texts_outside_the_grammar_are_refused(text: str, reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(reason)):
        parse_karyotype(text)


def test_changes_may_be_told_from_a_level_that_is_written() -> None:
    high = "58<2n>,XX,+1,+2,+3,+4,+5,+6,+7,+8,+9,+10,+11,+12"
    assert parse_karyotype(high).tolist() == [3] * 12 + [2] * 10 + [2, 0]
    assert parse_karyotype("69,XXX").tolist() == counts(3, 0, level=3).tolist()


def test_abnormalities_sex_first_then_by_number() -> None:
    assert numerical_abnormalities(counts(2, 0)) == []
    assert not is_abnormal(counts(1, 1))
    found = numerical_abnormalities(counts(2, 1, _21=3, _7=0))
    assert found == [
        Abnormality("sex", 1, "XXY"),
        Abnormality("7", -2, ""),
        Abnormality("21", 1, "3"),
    ]
    assert is_abnormal(counts(1, 0))
    assert is_abnormal(counts(0, 2))  # YY: as many as normal, but not normal
    assert is_abnormal(counts(2, 0, _8=3, _21=1))


def test_counting_leaves_out_what_is_no_chromosome() -> None:
    assert count_classes([0, 0, -1, 23, 24]).tolist() == [2, *[0] * 22, 1]
    assert count_classes([]).sum() == 0
    assert sex_complement(counts(3, 2)) == "XXXYY"
    assert differences(counts(2, 0, _3=1, _9=4)) == ["-3", "+9", "+9"]


@pytest.mark.parametrize("wrong", [[1] * 23, [-1] + [2] * 23, [0.5] * 24, "46,XX", [None] * 24])
def test_counts_have_to_be_24_whole_numbers(wrong: object) -> None:
    with pytest.raises(DataError, match="24 whole numbers"):
        checked_counts(wrong)


@pytest.mark.parametrize(
    ("iscn", "unidentified"),
    [("46,XX,-8,inc", 1), ("47,XY,inc", 1), ("46,?,-1,inc", 3), ("48,XX,+8,inc", 1)],
)
def test_unidentified_chromosomes_are_in_the_total_and_in_no_class(
    iscn: str, unidentified: int
) -> None:
    counts, found = read_karyotype(iscn)
    assert found == unidentified
    assert counts.sum() + unidentified == int(iscn[:2])
    assert parse_karyotype(iscn).tolist() == counts.tolist()
    assert format_karyotype(counts, unidentified) == iscn


@pytest.mark.parametrize("iscn", ["46,XX,inc", "45,XX,inc", "46,XX,inc,-8", "inc", "46,inc"])
def test_an_incomplete_karyotype_that_lacks_nothing_is_refused(iscn: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_karyotype(iscn)


def test_complete_karyotypes_have_nothing_unidentified() -> None:
    assert read_karyotype("47,XY,+21")[1] == 0
    assert read_karyotype("")[1] == 0
    with pytest.raises(DataError, match="0 or more"):
        format_karyotype(parse_karyotype("46,XX"), -1)


@pytest.mark.parametrize(
    ("more", "derivatives", "text"),
    [
        ({}, {"5": 1}, "46,XX,der(5)"),
        ({}, {"5": 2, "X": 1}, "46,X,der(X),der(5),der(5)"),
        ({"5": 1}, {"5": 1}, "47,XX,+der(5)"),
        ({"5": 1}, {"5": 2}, "47,XX,der(5),+der(5)"),
        ({"5": -1, "8": 2}, {"5": 1, "8": 1}, "47,XX,-5,der(5),+8,+der(8)"),
        ({}, {"X": 2}, "46,der(X),der(X)"),
    ],
)
def test_a_derivative_stands_for_a_copy_of_its_class(
    more: dict[str, int], derivatives: dict[str, int], text: str
) -> None:
    counts, changed = np.array([2] * 23 + [0]), np.zeros(24, np.int64)
    for name, number in more.items():
        counts[class_index(name)] += number
    for name, number in derivatives.items():
        changed[class_index(name)] = number
    assert format_karyotype(counts, derivatives=changed) == text


def test_more_derivatives_than_chromosomes_are_refused() -> None:
    with pytest.raises(DataError, match="more derivatives than chromosomes"):
        format_karyotype([2] * 23 + [0], derivatives=[0] * 23 + [1])
