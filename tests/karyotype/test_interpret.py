from __future__ import annotations

import json
import math

import numpy as np
import pytest

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype import DISCLAIMER
from deepacc_d2.karyotype.interpret import Interpretation, KaryotypeSettings, interpret
from deepacc_d2.karyotype.iscn import parse_karyotype
from deepacc_d2.karyotype.settings import DOUBTS

NONE = 24


def cell(iscn: str, sure: float = 0.96) -> tuple[np.ndarray, np.ndarray]:
    """Boxes side by side with gaps, and clear probabilities of a karyotype."""
    classes = np.repeat(np.arange(24), parse_karyotype(iscn))
    p = np.full((len(classes), 25), (1 - sure) / 24)
    p[np.arange(len(classes)), classes] = sure
    x = 50.0 * np.arange(len(classes))
    zero = np.zeros(len(classes))
    return np.stack([x, zero, x + 40, zero + 90], axis=1), p


def share(p: np.ndarray, row: int, **shares: float) -> None:
    """Makes one box ambiguous, in place: shares by class index as _7=0.4."""
    p[row] = (1 - sum(shares.values())) / (25 - len(shares))
    for name, value in shares.items():
        p[row, int(name[1:])] = value


def test_a_clear_normal_cell_has_no_flags() -> None:
    boxes, p = cell("46,XY", 0.9999)
    found = interpret(boxes, p)
    assert found.karyotype == found.karyotype_by_box == "46,XY"
    assert found.cell_flags == ()
    assert set(found.flags) == {()}
    assert found.changes == ()
    assert found.confidences == pytest.approx(0.9999)
    assert found.confidence == pytest.approx(0.9999**46, abs=1e-6)
    assert found.counts.tolist() == parse_karyotype("46,XY").tolist()


def test_both_answers_are_told_where_they_differ() -> None:
    boxes, p = cell("46,XX")
    share(p, 14, _7=0.44, _8=0.5)
    found = interpret(boxes, p)
    assert (found.karyotype, found.karyotype_by_box) == ("46,XX", "46,XX,-8,+9")
    assert found.labels[14] == 8
    assert found.assigned[14] == 7
    assert found.confidences[14] == pytest.approx(0.44)
    assert found.flags[14] == ("reassigned", "low_confidence")
    assert "answers_differ" in found.cell_flags
    assert [(c.index, c.before, c.after) for c in found.changes] == [(14, 8, 7)]
    plain = interpret(boxes, p, KaryotypeSettings(prior_strength=0))
    assert plain.karyotype == plain.karyotype_by_box == "46,XX,-8,+9"
    assert plain.changes == ()


def test_a_box_that_is_left_out_keeps_its_label() -> None:
    boxes, p = cell("47,XX,+21")
    share(p, 42, _20=0.51, _24=0.48)
    found = interpret(boxes, p)
    assert found.assigned[42] == LEFT_OUT
    assert found.labels[42] == 20
    assert found.confidences[42] == pytest.approx(0.51)
    assert found.flags[42] == ("left_out",)
    assert found.karyotype == "46,XX"
    assert found.karyotype_by_box == "47,XX,+21"


def test_a_chromosome_of_no_clear_class_is_counted_and_named_by_none() -> None:
    boxes, p = cell("46,XX", 0.9999)
    p[14] = 0.0
    p[14, [5, 6, 7, 8, 9, NONE]] = *[0.15] * 5, 0.25
    found = interpret(boxes, p)
    assert found.assigned[14] == UNIDENTIFIED
    assert found.flags[14] == ("unidentified", "low_confidence")
    assert found.unidentified == 1
    assert found.karyotype == found.karyotype_by_box == "46,XX,-8,inc"
    assert found.counts.sum() == 45
    assert found.changes == ()
    assert {"abnormal", "unidentified"} <= set(found.cell_flags)
    assert "count_not_46" not in found.cell_flags
    named = interpret(boxes, p, KaryotypeSettings(unidentified=0.15))
    assert named.unidentified == 0
    assert named.karyotype == "46,XX"
    # One that is more probably nothing is left out, whatever its classes.
    p[14, [5, 6, 7, 8, 9, NONE]] = *[0.09] * 5, 0.55
    assert interpret(boxes, p, KaryotypeSettings(prior_strength=0)).assigned[14] == LEFT_OUT


def test_touching_boxes_are_those_that_overlap_more_than_the_threshold() -> None:
    boxes, p = cell("46,XX", 0.9999)
    boxes[1] = boxes[0] + [29, 0, 29, 0]  # 11 of 40 pixels shared: 27.5 percent
    boxes[3] = boxes[2] + [31, 0, 31, 0]  # 9 of 40: 22.5 percent
    boxes[5] = [205, 20, 220, 60]  # wholly inside box 4
    found = interpret(boxes, p)
    assert [n for n, flags in enumerate(found.flags) if "touching" in flags] == [0, 1, 4, 5]
    assert "many_touching" not in found.cell_flags
    boxes[:] = boxes[0]
    assert "many_touching" in interpret(boxes, p).cell_flags
    strict = interpret(boxes, p, KaryotypeSettings(touching=1.0))
    assert set(strict.flags) == {()}


@pytest.mark.parametrize(
    ("iscn", "flags"),
    [
        ("47,XX,+21", ("abnormal", "count_not_46")),
        ("46,XX,+8,-21", ("abnormal",)),
        ("44,?", ("abnormal", "count_not_46", "sex_unclear")),
        ("45,X", ("abnormal", "count_not_46")),
        ("23<1n>,X", ("few_chromosomes", "abnormal", "count_not_46")),
    ],
)
def test_flags_of_a_cell(iscn: str, flags: tuple[str, ...]) -> None:
    boxes, p = cell(iscn, 0.9999)
    found = interpret(boxes, p, KaryotypeSettings(low_cell_confidence=0.0))
    assert found.karyotype == iscn
    assert found.cell_flags == flags


def test_the_sex_is_unclear_where_a_sex_chromosome_is() -> None:
    boxes, p = cell("46,XY", 0.9999)
    share(p, 45, _23=0.7, _21=0.25)
    assert "sex_unclear" in interpret(boxes, p).cell_flags


def test_the_temperature_softens_and_the_cell_confidence_is_mapped() -> None:
    boxes, p = cell("46,XX")
    soft = interpret(boxes, p, KaryotypeSettings(temperature=2.0))
    ratio = (0.96 / (0.04 / 24)) ** 0.5
    assert soft.confidences == pytest.approx(ratio / (ratio + 24))
    assert "low_confidence" in soft.cell_flags
    plain = interpret(boxes, p)
    mapped = interpret(boxes, p, KaryotypeSettings(cell_a=1.0, cell_b=0.5))
    product = 0.96**46
    odds = math.log(product / (1 - product))
    assert plain.confidence == pytest.approx(product)
    assert mapped.confidence == pytest.approx(1 / (1 + math.exp(-(1 + 0.5 * odds))))


def test_nothing_found_is_a_valid_answer() -> None:
    for boxes, p in (([], []), (np.zeros((0, 4)), np.zeros((0, 25)))):
        found = interpret(boxes, p, KaryotypeSettings(cell_a=5.0))
        assert isinstance(found, Interpretation)
        assert (found.karyotype, found.karyotype_by_box) == ("", "")
        assert found.confidence == 0
        assert found.cell_flags == ("no_chromosomes",)
        assert found.assigned.shape == (0,)


def test_all_boxes_most_probably_nothing() -> None:
    boxes, p = cell("46,XX")
    p[:] = 0
    p[:, NONE] = 1.0
    found = interpret(boxes, p, KaryotypeSettings(temperature=1.3))
    assert found.karyotype == ""
    assert found.cell_flags == ("no_chromosomes",)
    assert np.isfinite(found.probabilities).all()


@pytest.mark.parametrize(
    ("boxes", "p"),
    [
        (np.zeros((2, 4)), np.zeros((3, 25))),
        (np.zeros((2, 3)), np.zeros((2, 25))),
        (np.zeros((2, 4)), np.zeros((2, 24))),
        (np.zeros((2, 4)), np.full((2, 25), np.nan)),
        (np.full((2, 4), np.inf), np.full((2, 25), 0.04)),
    ],
)
def test_what_does_not_fit_is_refused(boxes: np.ndarray, p: np.ndarray) -> None:
    with pytest.raises(DataError):
        interpret(boxes, p)


def test_settings_are_stored_and_read_back() -> None:
    weights = (1.5, *np.linspace(0, 1, len(DOUBTS)).tolist())
    for settings in (
        KaryotypeSettings(),
        KaryotypeSettings(1.5, math.inf, 2.0, -2.0, 0.7),
        KaryotypeSettings(cell_weights=weights),
    ):
        stored = json.loads(json.dumps(settings.to_dict(), allow_nan=False))
        assert KaryotypeSettings.from_dict(stored) == settings
    assert KaryotypeSettings.from_dict({}) == KaryotypeSettings()


def test_a_gap_is_filled_by_a_box_in_doubt_and_the_cell_says_so() -> None:
    boxes, p = cell("46,XX", 0.95)
    faint = np.full((1, 25), 0.001)
    faint[0, [20, NONE]] = 0.05, 0.927
    plain = interpret(boxes, p, KaryotypeSettings(loss_factor=2.0))
    row = plain.assigned.tolist().index(20)
    kept = np.arange(46) != row
    more = np.concatenate([boxes[kept], boxes[[row]]]), np.concatenate([p[kept], faint])
    assert interpret(*more, KaryotypeSettings()).assigned[-1] == LEFT_OUT
    filled = interpret(*more, KaryotypeSettings(loss_factor=2.0))
    assert filled.assigned[-1] == 20
    assert filled.karyotype == "46,XX"
    assert {"reassigned", "low_confidence"} <= set(filled.flags[-1])
    assert filled.confidence < plain.confidence


def test_settings_of_before_there_were_weights_are_read() -> None:
    old = {"temperature": 0.9, "prior_strength": 0.25, "cell_a": 4.3, "cell_b": 0.74}
    settings = KaryotypeSettings.from_dict({**old, "low_confidence": 0.8, "few_chromosomes": 35})
    assert (settings.cell_a, settings.cell_b, settings.cell_weights) == (4.3, 0.74, ())
    boxes, p = cell("46,XX", 0.9)
    product = sum(46 * [math.log(interpret(boxes, p, settings).probabilities.max())])
    odds = product - math.log(-math.expm1(product))
    expected = 1 / (1 + math.exp(-(4.3 + 0.74 * odds)))
    assert interpret(boxes, p, settings).confidence == pytest.approx(expected)


@pytest.mark.parametrize(
    "content",
    [
        {"temperature": 0},
        {"temperature": "1"},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"prior_strength": -0.5},
        {"prior_strength": None},
        {"low_confidence": 1.5},
        {"cell_b": -1},
        {"few_chromosomes": 3.5},
        {"unidentified": 1.5},
        {"most_doubtful": -0.1},
        {"size_factor": 0.9},
        {"loss_factor": 0.9},
        {"cell_weights": [1.0]},
        {"cell_weights": {"offset": 1.0}},
        {"cell_weights": {"offset": 1.0, **dict.fromkeys(DOUBTS, -1.0)}},
        {"cell_weights": {"offset": "a", **dict.fromkeys(DOUBTS, 1.0)}},
        {"temperature": True},
        {"prior": 1},
        [1.0],
        "temperature",
    ],
)
def test_bad_settings_are_refused_in_one_line(content: object) -> None:
    with pytest.raises(DataError, match="karyotype setting") as caught:
        KaryotypeSettings.from_dict(content)
    assert "\n" not in str(caught.value)


def test_the_statement_of_every_report() -> None:
    assert DISCLAIMER == "Research software. Not a medical device; nothing here is a diagnosis."
