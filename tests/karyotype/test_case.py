from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.case import CaseResult, differing, summarize_case, summarize_counts
from deepacc_d2.karyotype.iscn import parse_karyotype


def cells(*groups: tuple[int, str]) -> list[tuple[str, np.ndarray]]:
    """So many cells of each karyotype, named in order."""
    texts = [text for number, text in groups for _ in range(number)]
    return [(f"cell{n:02d}", parse_karyotype(text)) for n, text in enumerate(texts)]


def case_of(found: list[tuple[str, np.ndarray]], case_id: str | None = None) -> CaseResult:
    return summarize_counts([name for name, _ in found], [c for _, c in found], case_id=case_id)


@pytest.mark.parametrize(
    ("groups", "karyotype"),
    [
        ([(20, "46,XX")], "46,XX[20]"),
        ([(8, "47,XY,+21"), (12, "46,XY")], "47,XY,+21[8]/46,XY[12]"),
        ([(12, "46,XY"), (8, "47,XY,+21")], "47,XY,+21[8]/46,XY[12]"),
        ([(20, "47,XY,+21")], "47,XY,+21[20]"),
        # A gain in one cell and a loss in two are not clonal; in two and three they are.
        ([(19, "46,XY"), (1, "47,XY,+8")], "46,XY[19]"),
        ([(18, "46,XY"), (2, "47,XY,+8")], "47,XY,+8[2]/46,XY[18]"),
        ([(18, "46,XX"), (2, "45,XX,-7")], "46,XX[18]"),
        ([(17, "46,XX"), (3, "45,XX,-7")], "45,XX,-7[3]/46,XX[17]"),
        # Cells that each lost another chromosome share no change, and are not 46,XX.
        ([(17, "46,XX"), (1, "45,XX,-7"), (1, "45,XX,-8"), (1, "45,XX,-9")], "46,XX[17]"),
        # A trisomic cell that lost something else by chance is not of its clone's karyotype.
        ([(17, "47,XX,+21"), (1, "46,XX,-3,+21"), (1, "46,XX,+21,-22")], "47,XX,+21[17]"),
        ([(10, "45,X"), (10, "46,XX")], "45,X[10]/46,XX[10]"),
        ([(4, "45,X"), (10, "46,XY")], "45,X[4]/46,XY[10]"),
        ([(2, "45,X"), (10, "46,XY")], "46,XY[10]"),
        ([(9, "47,XXY"), (11, "46,XY")], "47,XXY[9]/46,XY[11]"),
        ([(20, "45,X")], "45,X[20]"),
        ([(6, "45,X"), (9, "47,XXX"), (5, "46,XX")], "47,XXX[9]/45,X[6]/46,XX[5]"),
        # Both clonal changes in one cell are no third clone.
        ([(9, "47,XX,+8"), (6, "47,XX,+21"), (1, "48,XX,+8,+21")], "47,XX,+8[9]/47,XX,+21[6]"),
        # Related clones: the stemline first, however few its cells; unrelated ones by size.
        (
            [(5, "47,XY,+8"), (11, "48,XY,+8,+21"), (4, "46,XY")],
            "47,XY,+8[5]/48,XY,+8,+21[11]/46,XY[4]",
        ),
        (
            [(6, "47,XX,+8"), (13, "48,XX,+8,+8"), (1, "46,XX")],
            "47,XX,+8[6]/48,XX,+8,+8[13]/46,XX[1]",
        ),
        (
            [(9, "47,XX,+3"), (2, "47,XX,+8"), (3, "48,XX,+8,+21"), (6, "46,XX")],
            "47,XX,+8[2]/48,XX,+8,+21[3]/47,XX,+3[9]/46,XX[6]",
        ),
        # One cell is the stemline if what it has is clonal by the cells that came of it.
        ([(1, "47,XX,+8"), (2, "48,XX,+8,+21")], "47,XX,+8[1]/48,XX,+8,+21[2]"),
        # A loss that two cells of a clone have is not clonal in them.
        ([(5, "47,XX,+8"), (2, "46,XX,-7,+8")], "47,XX,+8[5]"),
        ([(5, "47,XX,+8"), (3, "46,XX,-7,+8")], "47,XX,+8[5]/46,XX,-7,+8[3]"),
        # Nobody has just the changes that are shared: a composite.
        (
            [(1, "48,XX,+3,+8"), (1, "46,XX,-5,+8"), (1, "48,XX,+8,+9"), (2, "46,XX")],
            "46~48,XX,+8[3][cp3]/46,XX[2]",
        ),
        (
            [(1, "49,XX,+3,+8,+21"), (1, "47,XX,-5,+8,+21"), (1, "48,XX,+8,+9")],
            "47~49,XX,+8[3],+21[2][cp3]",
        ),
        # The other sex that they share is no change.
        ([(1, "47,XX,+3"), (1, "45,XX,-9"), (5, "46,XY")], "46,XY[5]"),
        ([(3, "92<4n>,XXYY"), (17, "46,XY")], "92<4n>,XXYY[3]/46,XY[17]"),
        # A doubled cell has no trisomies, and is no clone by itself.
        ([(1, "92<4n>,XXYY"), (1, "47,XY,+8"), (8, "46,XY")], "46,XY[8]"),
        # Few cells: only what all of them show.
        ([(1, "47,XY,+21")], "47,XY,+21[1]"),
        ([(2, "45,X")], "45,X[2]"),
        ([(1, "45,X"), (1, "46,XX")], "46,XX[1]"),
        ([(1, "45,XX,-3"), (1, "45,XX,-5"), (1, "45,XX,-9")], ""),
        # Two cells that nobody saw as 46,XY do not make one.
        ([(1, "47,XY,+8"), (1, "45,XY,-9")], ""),
    ],
)
def test_the_clones_of_a_case(groups: list[tuple[int, str]], karyotype: str) -> None:
    assert case_of(cells(*groups)).karyotype == karyotype


def test_cells_that_disagree_are_reported_with_what_differs() -> None:
    given_cells = cells((6, "47,XY,+21"), (1, "45,X,-5,+21"), (1, "46,XY,+21,-22"), (4, "46,XY"))
    result = case_of(given_cells, case_id="A7")
    assert result.karyotype == "47,XY,+21[6]/46,XY[4]"
    assert [(d.name, d.karyotype, d.clone, d.differs) for d in result.disagreeing] == [
        ("cell06", "45,X,-5,+21", "47,XY,+21", ("X for XY", "-5")),
        ("cell07", "46,XY,+21,-22", "47,XY,+21", ("-22",)),
    ]
    assert result.clones[0].names == tuple(f"cell{n:02d}" for n in range(6))
    assert (result.n_cells, result.n_counted, result.n_excluded) == (12, 10, 0)
    assert result.review == ("cell06", "cell07")
    assert result.case_id == "A7"


def test_cells_without_chromosomes_and_burst_ones_are_left_out() -> None:
    burst = np.zeros(24, dtype=int)
    burst[:12] = 2
    given_cells = [*cells((5, "46,XX")), ("empty", np.zeros(24, dtype=int)), ("burst", burst)]
    result = case_of(given_cells)
    assert result.karyotype == "46,XX[5]"
    assert [(e.name, e.reason) for e in result.excluded] == [
        ("empty", "no chromosome found"),
        ("burst", "24 chromosomes, fewer than 35"),
    ]
    assert set(result.review) == {"empty", "burst"}


def test_a_case_without_a_cell_that_counts() -> None:
    assert case_of([]).karyotype == ""
    result = case_of([("a", np.zeros(24, dtype=int))])
    assert (result.karyotype, result.n_counted, result.n_excluded) == ("", 0, 1)
    json.dumps(result.to_record())


def test_a_single_cell_says_that_it_is_no_clone() -> None:
    assert "no clone" in case_of(cells((1, "46,XX"))).notes[0]
    assert case_of(cells((3, "46,XX"))).notes == ()


def predicted(name: str, iscn: str, confidence: float, flags: tuple[str, ...] = ()) -> Cell:
    p = np.full(25, 1 / 25)
    found = [
        Chromosome((0.0, 0.0, 1.0, 1.0), p, int(k), int(k), 0.9)
        for k in np.repeat(np.arange(24), parse_karyotype(iscn))
    ]
    return Cell(name, "", 10, 10, found, iscn, iscn, confidence, flags)


def test_predicted_cells_and_their_order_of_review() -> None:
    result = summarize_case(
        [
            predicted("sure", "46,XX", 0.9),
            predicted("flagged", "46,XX", 0.6, ("many_touching",)),
            predicted("worse", "46,XX", 0.2, ("low_confidence",)),
            predicted("odd", "45,XX,-4", 0.95, ("abnormal",)),
        ],
        case_id=None,
    )
    assert result.karyotype == "46,XX[3]"
    assert result.review == ("odd", "worse")  # below the threshold of low confidence


def test_names_have_to_be_unique() -> None:
    with pytest.raises(DataError, match="two cells are named a"):
        case_of([("a", parse_karyotype("46,XX"))] * 2)


def test_differences_tell_the_sex_chromosomes_first() -> None:
    change = differing(parse_karyotype("45,X,+8,-9"), parse_karyotype("46,XY"))
    assert change == ("X for XY", "+8", "-9")


TEXTS = st.sampled_from(
    ["46,XX", "46,XX", "46,XX", "47,XX,+8", "45,XX,-7", "45,X", "48,XX,+8,+21", "46,XY", "47,XXY"]
)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=12))
def test_each_cell_counts_once_and_clones_obey_the_rule(texts: list[str]) -> None:
    found = cells(*((1, text) for text in texts))
    result = case_of(found)
    counted = [name for clone in result.clones for name in clone.names]
    others = [e.name for e in (*result.excluded, *result.disagreeing)]
    assert sorted([*counted, *others]) == [name for name, _ in found]
    numbers = [int(n) for n in re.findall(r"\[(\d+)\]", result.karyotype)]
    assert sum(numbers) == result.n_counted
    for clone in result.clones:
        own = [texts[int(name.removeprefix("cell"))] for name in clone.names]
        assert clone.composite or set(own) == {clone.karyotype}
    # By hand: a gain of 8 is in some clone just if two cells have it (or the only one).
    eights = sum("+8" in text for text in texts)
    if eights < min(2, len(texts)):
        assert "+8" not in result.karyotype


def test_an_unfit_cell_has_no_place_in_a_clone() -> None:
    found = cells((3, "46,XX"), (3, "47,XX,+21"))
    names, counts = [name for name, _ in found], [c for _, c in found]
    whole = summarize_counts(names, counts)
    assert whole.karyotype == "47,XX,+21[3]/46,XX[3]"
    case = summarize_counts(names, counts, unfit={4: "two spreads", 5: "no spread; 30 in doubt"})
    # One gain that only one of the counted cells has is not clonal.
    assert case.karyotype == case.by_box == "46,XX[3]"
    assert [(e.name, e.karyotype, e.reason) for e in case.excluded] == [
        ("cell04", "", "unfit: two spreads"),
        ("cell05", "", "unfit: no spread; 30 in doubt"),
    ]
    assert (case.n_cells, case.n_counted, case.n_excluded) == (6, 3, 2)
    assert "Not counted, unfit to be karyotyped: 2." in case.notes
    assert {"cell04", "cell05"} <= set(case.review)


def test_an_unidentified_chromosome_is_no_evidence_of_a_loss() -> None:
    found = cells((5, "46,XX"), (3, "45,XX,-8"))
    names, counts = [name for name, _ in found], [c for _, c in found]
    assert summarize_counts(names, counts).karyotype == "45,XX,-8[3]/46,XX[5]"
    unclear = [0] * 5 + [1, 1, 1]
    case = summarize_counts(names, counts, unidentified=unclear)
    # What could not be told in them, no clone counts either.
    assert case.karyotype == case.by_box == "46,XX[5]"
    assert [d.differs for d in case.disagreeing] == [("1 unidentified",)] * 3
    assert case.disagreeing[0].karyotype == "46,XX,-8,inc"
    # One more than is lacking is not told as a gain of any class.
    assert summarize_counts(names, counts, unidentified=[0] * 5 + [2] * 3).karyotype == "46,XX[5]"
    # Where all cells are incomplete, so is their karyotype.
    alone = summarize_counts(names[5:], counts[5:], unidentified=[1, 1, 1])
    assert alone.karyotype == "46,XX,inc[3]"
    # A second loss besides it is a loss: what the fewest cells lack is taken to be the one.
    for n, lost in zip((5, 6, 7), (3, 4, 5), strict=True):
        counts[n] = counts[n].copy()
        counts[n][lost] -= 1
    assert summarize_counts(names, counts, unidentified=unclear).karyotype == (
        "45,XX,-8,inc[3]/46,XX[5]"
    )
    male = cells((4, "46,XY"), (1, "45,X"))
    names, counts = [name for name, _ in male], [c for _, c in male]
    case = summarize_counts(names, counts, unidentified=[0, 0, 0, 0, 1])
    assert (case.karyotype, case.disagreeing[0].differs) == ("46,XY[4]", ("1 unidentified",))


def test_markers_are_gains() -> None:
    found = cells((5, "46,XX"))
    names, counts = [name for name, _ in found], [c for _, c in found]
    case = summarize_counts(names, counts, markers=[1, 1, 0, 0, 2])
    assert case.karyotype == "47,XX,+mar[2]/46,XX[2]"
    assert [(d.karyotype, d.differs) for d in case.disagreeing] == [("48,XX,+2mar", ("+mar",))]
    case = summarize_counts(names, counts, markers=[1, 0, 0, 0, 0])
    assert case.karyotype == "46,XX[4]"


def _clonal(karyotype: str, texts: list[str]) -> bool:
    """ISCN's rule by counting words: a gain in two cells, a loss in three."""
    parts = karyotype.split(",")[2:]
    for part in set(parts):
        have = sum(text.split(",").count(part) >= parts.count(part) for text in texts)
        if have < min(len(texts), 2 if part.startswith("+") else 3):
            return False
    return True


AUTOSOMAL = st.lists(st.sampled_from(["+8", "+21", "-7", "+8"]), max_size=3).map(
    lambda parts: sorted(parts, key=lambda p: int(p[1:]))
)


@settings(max_examples=80, deadline=None)
@given(
    parts=st.lists(AUTOSOMAL, min_size=3, max_size=14).map(
        lambda cells: [p for p in cells if p.count("-7") < 3]
    )
)
def test_what_is_listed_is_clonal_and_in_iscn_order(parts: list[list[str]]) -> None:
    texts = []
    for own in parts:
        total = 46 + sum(1 if p[0] == "+" else -1 for p in own)
        texts.append(",".join([str(total), "XX", *own]))
    result = case_of(cells(*((1, text) for text in texts)))
    for clone in result.clones:
        if clone.composite:
            continue
        assert clone.n == texts.count(clone.karyotype)
        assert clone.karyotype == "46,XX" or _clonal(clone.karyotype, texts)
    # What two cells are in gains, three where there is a loss, is listed.
    for text in set(texts):
        often = texts.count(text)
        if often >= 2 and ("-" not in text or often >= 3):
            assert text in [clone.karyotype for clone in result.clones]
    exact = [c for c in result.clones if not c.composite]
    assert all(c.karyotype != "46,XX" for c in exact[:-1])
    # Stemlines: what is wholly within another clone's changes comes before it.
    for n, first in enumerate(exact):
        for second in exact[n + 1 :]:
            a, b = first.karyotype.split(",")[2:], second.karyotype.split(",")[2:]
            contains = all(a.count(p) >= b.count(p) for p in set(b))
            assert not (b and contains and len(a) > len(b))
