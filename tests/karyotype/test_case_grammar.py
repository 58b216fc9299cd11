"""Karyotypes of cases, read by a published parser, and by a grammar written from ISCN alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iscn_authenticator import validate_karyotype

from deepacc_d2.karyotype.case import summarize_counts
from deepacc_d2.karyotype.counts import normal_counts

# number or range, level of ploidy, sex, changes (in composites with their cells), incomplete, cells
CLONE = re.compile(
    r"(?P<low>\d+)(?:~(?P<high>\d+))?(?:<(?P<level>\d)n>)?,(?P<sex>X*Y*|\?)"
    r"(?P<changes>(?:,[+-](?:\d{1,2}|\d?mar)(?:\[\d+\])?)*)(?P<inc>,inc)?\[(?P<cp>cp)?(?P<n>\d+)\]"
)
CELLS = st.lists(
    st.tuples(
        st.sampled_from(["XX", "XY"]),
        st.lists(st.sampled_from([0, 2, 6, 7, 20, 21]), max_size=2),  # classes gained
        st.lists(st.sampled_from([3, 6, 8]), max_size=1),  # and lost
    ),
    min_size=1,
    max_size=14,
)


def counts_of(sex: str, gained: list[int], lost: list[int]) -> np.ndarray:
    counts = normal_counts((sex.count("X"), sex.count("Y")))
    for k in gained:
        counts[k] += 1
    for k in lost:
        counts[k] -= 1
    return counts


@settings(max_examples=80, deadline=None)
@given(found=CELLS, unclear=st.integers(0, 3))
def test_a_case_is_in_iscn(found: list[tuple[str, list[int], list[int]]], unclear: int) -> None:
    counts = [counts_of(*each) for each in found]
    unidentified = [int(n < unclear) for n in range(len(found))]
    case = summarize_counts([str(n) for n in range(len(found))], counts, unidentified=unidentified)
    if not case.karyotype:
        assert not case.clones
        return
    total = 0
    for text in case.karyotype.split("/"):
        match = CLONE.fullmatch(text)
        assert match is not None, text
        total += int(match["n"])
        changes = [c for c in match["changes"].split(",") if c]
        if match["cp"]:
            assert int(match["n"]) >= 2
            assert all(2 <= int(c[c.index("[") + 1 : -1]) <= int(match["n"]) for c in changes)
            assert match["high"] is None or int(match["low"]) < int(match["high"])
        else:
            assert match["high"] is None
            signs = [1 if c[0] == "+" else -1 for c in changes]
            assert int(match["low"]) == 44 + len(match["sex"]) + sum(signs)
        numbers = [int(re.match(r"\d+", c[1:])[0]) for c in changes]  # type: ignore[index]
        assert numbers == sorted(numbers)
    assert total == case.n_counted

    # The published parser takes numbers of cells only between several clones.
    several = "/" in case.karyotype
    checked = validate_karyotype(case.karyotype if several else case.clones[0].karyotype)
    assert checked.valid, checked.errors
    assert checked.parsed is not None
    lines = checked.parsed.cell_lines
    if lines and not any(clone.composite or "inc" in clone.karyotype for clone in case.clones):
        assert [line.count for line in lines] == [clone.n for clone in case.clones]
        for line, clone in zip(lines, case.clones, strict=True):
            own = counts[int(clone.names[0])]
            assert line.chromosome_count == own.sum()
            assert line.sex_chromosomes == "X" * own[22] + "Y" * own[23]
            parsed = normal_counts((int(own[22]), int(own[23])))
            for each in line.abnormalities:
                parsed[int(each.chromosome) - 1] += 1 if each.type == "+" else -1
            assert parsed.tolist() == own.tolist()


@pytest.mark.parametrize(
    "text", ["47,XY,+8[5]/48,XY,+8,+21[11]/46,XY[4]", "46~48,XX,+8[3][cp3]/46,XX[2]", "45,X[3]"]
)
def test_the_grammar_reads_what_iscn_prints(text: str) -> None:
    assert all(CLONE.fullmatch(part) for part in text.split("/"))
    assert CLONE.fullmatch("47,XY+8[5]") is None
    assert CLONE.fullmatch("47,XY,+8") is None
