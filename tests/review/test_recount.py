"""What is told of a corrected cell, against counts made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepacc_d2.cell import UNIDENTIFIED
from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.karyotype.case import summarize_case
from deepacc_d2.prediction.record import from_record, to_record
from deepacc_d2.review import events as ev
from deepacc_d2.review.recount import recount
from deepacc_d2.review.replay import replay
from deepacc_d2.review.state import EditError, first_state
from deepacc_d2.review.summary import summarize

from .fixtures import cell_of, probabilities_of


def boxes(number):
    return [(20.0 * n, 10.0 * (n % 7), 20.0 * n + 15, 10.0 * (n % 7) + 40) for n in range(number)]


def made(classes, sure=0.97, other=None):
    p = [probabilities_of(k, sure, other) for k in classes]
    about = {"width": 2000, "height": 200, "view": {}, "name": "a", "path": "a.png"}
    return cell_of(boxes(len(classes)), p, **about)


NORMAL = [k for k in range(22) for _ in range(2)] + [22, 22]


def test_without_events_it_is_the_prediction(cell, rules):
    assert recount(replay(cell, []), rules).cell is cell


def test_what_was_not_touched_is_told_as_in_prediction(rules):
    cell = made([*NORMAL, 20], sure=0.85)
    note = recount(replay(cell, [ev.Note(text="seen")]), rules).cell
    assert note.karyotype == cell.karyotype
    assert note.karyotype_by_box == cell.karyotype_by_box
    assert note.flags == cell.flags
    assert note.confidence == pytest.approx(cell.confidence)
    assert [c.flags for c in note.chromosomes] == [c.flags for c in cell.chromosomes]


def test_a_trisomy_appears_at_once(rules):
    cell = made([*NORMAL, 21], sure=0.85)
    assert cell.karyotype == "47,XX,+22"
    wrong = next(n + 1 for n, c in enumerate(cell.chromosomes) if c.assigned == 21)
    found = recount(replay(cell, [ev.Reclassify(chromosome=wrong, to="21")]), rules).cell
    assert found.karyotype == "47,XX,+21"
    assert found.counts()[20] == 3
    assert found.confidence > cell.confidence
    assert (
        recount(replay(cell, [ev.Reclassify(chromosome=wrong, to="21"), ev.Undo()]), rules).cell
        == cell
    )


def test_markers_and_unidentified_ones(rules):
    cell = made([*NORMAL, 10])
    extra = next(n + 1 for n, c in enumerate(cell.chromosomes) if c.assigned == 10)
    marker = [ev.Reclassify(chromosome=extra, to="mar")]
    found = recount(replay(cell, marker), rules)
    assert found.cell.karyotype == "47,XX,+mar"
    assert found.markers == 1
    assert [c.flags for c in found.cell.chromosomes if c.assigned == UNIDENTIFIED] == [
        ("unidentified", "marker")
    ]
    both = recount(replay(cell, [*marker, ev.Reclassify(chromosome=1, to="?")]), rules)
    assert both.cell.karyotype == "47,XX,-1,+mar,inc"
    two = recount(replay(cell, [*marker, ev.Reclassify(chromosome=1, to="mar")]), rules)
    assert two.cell.karyotype == "47,XX,-1,+2mar"
    # What a program reads again must not trip over it.
    again = from_record(to_record(both.cell))
    assert again.karyotype == both.cell.karyotype


def test_derivatives_are_in_flags_karyotype_and_case(rules):
    cell = made(NORMAL)
    five = next(n + 1 for n, c in enumerate(cell.chromosomes) if c.assigned == 4)
    state = replay(cell, [ev.Derivative(chromosome=five)])
    found = recount(state, rules)
    assert found.cell.karyotype == "46,XX,der(5)"
    assert [c.assigned for c in found.cell.chromosomes if "derivative" in c.flags] == [4]
    assert summarize(state, found)["derivatives"] == [int(k == 4) for k in range(24)]
    assert "derivatives" not in summarize(first_state(cell), recount(first_state(cell), rules))
    # As lists show it, and as an export has it: a person names what it is made of.
    others = [replace(cell, name=name) for name in "bc"]
    case = summarize_case([replace(found.cell, name="a"), *others], case_id="1")
    assert case.karyotype == "46,XX[2]"
    (out,) = case.excluded
    assert (out.name, out.karyotype) == ("a", "46,XX,der(5)")
    assert out.reason == "has a derivative, whose parts only a person can name"
    assert any("with a derivative: 1." in note for note in case.notes)


def test_markers_count_the_same_in_a_page_and_in_an_export(rules):
    cell = made([*NORMAL, 10])
    extra = next(n + 1 for n, c in enumerate(cell.chromosomes) if c.assigned == 10)
    found = recount(replay(cell, [ev.Reclassify(chromosome=extra, to="mar")]), rules)
    cells = [replace(found.cell, name=name) for name in "abc"]
    assert summarize_case(cells, case_id="1").karyotype == "47,XX,+mar[3]"


def test_a_confirmed_cell_is_certain_and_a_counted_one_is_not(rules):
    cell = made(NORMAL, sure=0.81, other=9)
    cell.chromosomes[5].probabilities = probabilities_of(cell.chromosomes[5].assigned, 0.6)
    cell.chromosomes[5].flags = ("low_confidence",)
    cell.confidence = recount(replay(cell, [ev.Note(text="seen")]), rules).cell.confidence
    assert "low_confidence" in {flag for c in cell.chromosomes for flag in c.flags}
    counted = recount(replay(cell, [ev.Confirm(level="counted")]), rules).cell
    assert counted.confidence == pytest.approx(cell.confidence)
    analyzed = recount(replay(cell, [ev.Confirm(level="analyzed")]), rules).cell
    assert analyzed.confidence > 0.99
    assert all("low_confidence" not in c.flags for c in analyzed.chromosomes)


def test_a_person_says_whether_a_cell_is_fit(rules):
    cell = made(NORMAL[:20])
    assert cell.unfit
    fit = recount(replay(cell, [ev.SetCountable(countable=True, reason="cut out")]), rules).cell
    assert not fit.unfit
    assert fit.karyotype
    not_fit = [ev.SetCountable(countable=False, reason="two cells")]
    unfit = recount(replay(made(NORMAL), not_fit), rules).cell
    assert unfit.reasons == ("not countable: two cells",)
    assert (unfit.karyotype, unfit.draft) == ("", "46,XX")


def test_deleting_until_too_few_makes_it_unfit(rules):
    cell = made(NORMAL)
    found = recount(replay(cell, [ev.Delete(chromosome=n) for n in range(1, 14)]), rules).cell
    assert found.reasons == ("only 33 chromosomes were found, fewer than 35",)


def test_record_of_any_state_is_consistent(rules):
    rng = np.random.default_rng(0)
    cell = made([*NORMAL, 3], sure=0.9)
    events = [
        ev.Reclassify(chromosome=int(rng.integers(1, 48)), to=str(rng.choice(CLASSES)))
        for _ in range(30)
    ]
    kept = []
    for event in events:
        try:
            replay(cell, [*kept, event])
        except EditError as error:
            assert "already" in str(error)  # noqa: PT017
            continue
        kept.append(event)
    record = to_record(recount(replay(cell, kept), rules).cell)
    for name, number in record["counts"].items():
        assert number == sum(c["class"] == name for c in record["chromosomes"])
    assert record["count"] == sum(record["counts"].values()) + record["unidentified"]
