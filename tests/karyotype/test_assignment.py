from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepacc_d2.cell import LEFT_OUT
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import (
    AUTOSOME_COST,
    LEAST_PROBABILITY,
    SEX_COST,
    assign,
    by_box_classes,
    choose_prior_strength,
    log_prior,
)
from deepacc_d2.karyotype.counts import count_classes, normal_counts
from deepacc_d2.karyotype.iscn import format_karyotype, parse_karyotype

NONE = 24


def boxes_of(iscn: str) -> list[int]:
    """The class of each chromosome of a karyotype."""
    return [int(k) for k in np.repeat(np.arange(24), parse_karyotype(iscn))]


def clear(classes: list[int], sure: float = 0.95) -> np.ndarray:
    """Probabilities (N, 25) of boxes that say clearly what they are."""
    p = np.full((len(classes), 25), (1 - sure) / 24)
    p[np.arange(len(classes)), classes] = sure
    return p


def between(p: np.ndarray, row: int, shares: dict[int, float]) -> np.ndarray:
    """Makes one box ambiguous."""
    p = p.copy()
    p[row] = (1 - sum(shares.values())) / (25 - len(shares))
    for k, share in shares.items():
        p[row, k] = share
    return p


def prior_by_hand(counts: np.ndarray, loss_factor: float = 1.0) -> np.ndarray:
    """The prior of counts (M, 24) as its description says, summed copy by copy."""
    best = np.full(len(counts), -math.inf)
    for x, y in ((2, 0), (1, 1)):
        total = np.zeros(len(counts))
        for k, normal in enumerate([2] * 22 + [x, y]):
            first, further = AUTOSOME_COST if k < 22 else SEX_COST
            table = [0.0]
            while len(table) <= counts.max(initial=2):
                table.append(table[-1] + (further if len(table) > 1 else first))
            cost = np.array(table)[np.abs(counts[:, k] - normal)]
            total -= np.where(counts[:, k] < normal, loss_factor * cost, cost)
        best = np.maximum(best, total)
    return best


def scores_by_hand(p: np.ndarray) -> np.ndarray:
    """Scores (N, 25): logs, that of no chromosome by its odds against all classes together."""
    floored = np.maximum(p, LEAST_PROBABILITY)
    scores = np.log(floored)
    for row, own in zip(scores, floored, strict=True):
        row[NONE] = math.log(own[:NONE].max() * own[NONE] / own[:NONE].sum())
    return scores


def brute_force(
    p: np.ndarray, strength: float, classes: list[int], loss_factor: float = 1.0
) -> float:
    """The best objective over all assignments to some classes or none."""
    logs = scores_by_hand(p)
    every = list(itertools.product([*classes, NONE], repeat=len(p)))
    choices = np.array(every, dtype=int).reshape(len(every), len(p))
    counts = (choices[:, :, None] == np.arange(24)).sum(axis=1)
    values = logs[np.arange(len(p)), choices].sum(axis=1)
    values += strength * prior_by_hand(counts, loss_factor)
    return float(values.max())


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    number=st.integers(0, 4),
    strength=st.sampled_from([0.0, 0.2, 0.5, 1.0, 3.0]),
    loss_factor=st.sampled_from([1.0, 1.5, 3.0]),
)
def test_the_objective_is_the_best_of_all_assignments(
    seed: int, number: int, strength: float, loss_factor: float
) -> None:
    rng = np.random.default_rng(seed)
    classes = [0, 20, 22, 23]
    p = np.zeros((number, 25))
    p[:, [*classes, NONE]] = rng.dirichlet(np.full(5, 0.5), size=number)
    # Classes that were never there cannot fill a gap: each loses as much by either answer.
    p[:, [*classes, NONE]] = np.maximum(p[:, [*classes, NONE]], 1e-6)
    p /= p.sum(axis=1, keepdims=True)
    found = assign(p, strength, loss_factor)
    # A box of one of the other 20 classes, of probability 0, costs -27 nats.
    best = brute_force(p, strength, classes, loss_factor)
    assert found.objective >= best - 1e-9
    if strength * loss_factor < 3:  # a gap is worth less than that
        assert found.objective == pytest.approx(best, abs=1e-9)
    logs = scores_by_hand(p)
    own = logs[np.arange(number), found.assigned].sum()
    own += strength * prior_by_hand(count_classes(found.assigned)[None], loss_factor)[0]
    assert own == pytest.approx(found.objective, abs=1e-9)


def test_more_copies_of_a_class_than_there_are_slots_at_first() -> None:
    for number in (1, 4, 5, 9, 33):
        found = assign(clear([7] * number, 0.999), 0.5)
        assert (found.assigned == 7).all()
        assert not found.changes


def test_without_slots_limit_the_answer_is_the_same() -> None:
    """Against an assignment problem with a slot for each box in each class."""
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(5)
    for _ in range(5):
        p = rng.dirichlet(np.full(25, 0.1) + 3 * np.eye(25)[8], size=12)
        logs = scores_by_hand(p)
        best = -math.inf
        for x, y in ((2, 0), (1, 1)):
            columns = [logs[:, [NONE]]] * 12
            for k in range(24):
                normal = ([2] * 22 + [x, y])[k]
                first, further = AUTOSOME_COST if k < 22 else SEX_COST

                def cost(
                    n: int, normal: int = normal, a: float = first, b: float = further
                ) -> float:
                    off = abs(n - normal)
                    return a + b * (off - 1) if off else 0.0

                columns += [logs[:, [k]] + 0.7 * (cost(n) - cost(n + 1)) for n in range(12)]
            scores = np.concatenate(columns, axis=1)
            rows, chosen = linear_sum_assignment(scores, maximize=True)
            empty = 22 * (AUTOSOME_COST[0] + AUTOSOME_COST[1])
            empty += SEX_COST[0] * (2 if y else 1) + (0 if y else SEX_COST[1])
            best = max(best, scores[rows, chosen].sum() - 0.7 * empty)
        assert assign(p, 0.7).objective == pytest.approx(best, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), number=st.integers(0, 60))
def test_strength_0_is_each_box_by_itself(seed: int, number: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(25, 0.2), size=number)
    found = assign(p, 0.0)
    expected = [LEFT_OUT if row[NONE] > 0.5 else int(row[:NONE].argmax()) for row in p]
    assert found.assigned.tolist() == expected
    assert found.changes == ()
    assert found.objective == pytest.approx(float(scores_by_hand(p).max(axis=1, initial=-99).sum()))


def test_the_sum_over_the_classes_says_whether_a_box_is_a_chromosome() -> None:
    p = np.full((3, 25), 1e-6)
    p[0, [6, 8, NONE]] = 0.3, 0.3, 0.4  # by far a chromosome, of no class in particular
    p[1, [6, 8, NONE]] = 0.25, 0.24, 0.51
    p[2, [6, NONE]] = 0.49, 0.505
    p[:, :NONE] += (1 - p.sum(axis=1, keepdims=True)) / NONE
    assert by_box_classes(p).tolist() == [6, LEFT_OUT, LEFT_OUT]
    assert assign(p, 0.0).assigned.tolist() == [6, LEFT_OUT, LEFT_OUT]
    # In a whole cell the prior decides at its documented cost: a third copy against exp(4 s) to 1.
    for odds, kept in ((6.8, False), (7.9, True)):
        third = clear([*boxes_of("46,XX"), 20], 0.9999)
        none = 1 / (1 + odds)
        third[46] = 1e-9
        third[46, [20, 21, NONE]] = 0.55 * (1 - none), 0.45 * (1 - none), none
        found = assign(third, 0.5)
        assert (found.assigned[46] != LEFT_OUT) == kept


def test_ties_at_strength_0_go_to_the_first_class() -> None:
    assert assign(np.full((3, 25), 1 / 25), 0.0).assigned.tolist() == [0, 0, 0]


@settings(max_examples=10, deadline=None)
@given(
    iscn=st.sampled_from(["46,XX", "46,XY"]),
    strength=st.floats(0, 5),
    seed=st.integers(0, 10**6),
)
def test_a_clear_normal_cell_stays_as_it_is(iscn: str, strength: float, seed: int) -> None:
    classes = list(np.random.default_rng(seed).permutation(boxes_of(iscn)))
    found = assign(clear(classes), strength)
    assert found.assigned.tolist() == classes
    assert found.changes == ()
    assert found.sex == ((2, 0) if iscn == "46,XX" else (1, 1))


@pytest.mark.parametrize(
    "iscn",
    [
        *("47,XY,+21", "47,XX,+13", "45,X", "47,XXY", "47,XYY", "47,XXX", "48,XXYY", "45,XY,-22"),
        *("46,XX,+8,-21", "48,XX,+8,+8", "44,?", "30<1n>,XX,+1,+2,+3,+4,+5,+6"),
        *("69<3n>,XXY", "68<3n>,XXX,-21", "92<4n>,XXYY"),
    ],
)
def test_a_clear_abnormality_is_kept_at_the_default_strength(iscn: str) -> None:
    classes = boxes_of(iscn)
    found = assign(clear(classes), 0.5)
    assert found.assigned.tolist() == classes
    assert format_karyotype(count_classes(found.assigned)) == iscn


def test_an_ambiguous_box_goes_where_a_copy_is_lacking() -> None:
    p = between(clear(boxes_of("46,XX")), 14, {7: 0.45, 8: 0.5})
    found = assign(p, 0.5)
    assert format_karyotype(count_classes(by_box_classes(p))) == "46,XX,-8,+9"
    assert format_karyotype(count_classes(found.assigned)) == "46,XX"
    (change,) = found.changes
    assert (change.index, change.before, change.after) == (14, 8, 7)
    assert change.cost == pytest.approx(math.log(0.5 / 0.45))


def test_a_chain_of_boxes_is_moved_where_that_is_best() -> None:
    p = clear(boxes_of("46,XX"))
    p = between(p, 14, {7: 0.3, 8: 0.6})  # an 8 that looks like a 9
    p = between(p, 16, {8: 0.44, 9: 0.55})  # a 9 that looks like a 10
    assert format_karyotype(count_classes(by_box_classes(p))) == "46,XX,-8,+10"
    found = assign(p, 0.5)
    # Neither of the two boxes may be 8 and 10 at once: both have to move.
    assert [(c.index, c.before, c.after) for c in found.changes] == [(14, 8, 7), (16, 9, 8)]
    assert format_karyotype(count_classes(found.assigned)) == "46,XX"


def test_a_box_of_doubtful_existence_is_left_out_or_fills_a_place() -> None:
    doubtful = {20: 0.52, NONE: 0.46}
    third = between(clear([*boxes_of("46,XX"), 20]), 46, doubtful)
    assert assign(third, 0.5).assigned[46] == LEFT_OUT
    assert assign(third, 0.0).assigned[46] == 20
    reverse = {20: 0.46, NONE: 0.52}
    second = between(clear([*boxes_of("45,XX,-21"), 20]), 45, reverse)
    found = assign(second, 0.5)
    assert found.assigned[45] == 20
    (change,) = found.changes
    assert (change.before, change.after) == (LEFT_OUT, 20)


def test_sex_hypotheses_compete() -> None:
    p = clear([*boxes_of("46,XX")[:44], 22])
    y_or_22 = between(np.concatenate([p, clear([23])]), 45, {21: 0.5, 23: 0.48})
    assert format_karyotype(count_classes(assign(y_or_22, 0.5).assigned)) == "46,XY"
    x_or_7 = between(np.concatenate([p, clear([22])]), 45, {6: 0.5, 22: 0.48})
    assert format_karyotype(count_classes(assign(x_or_7, 0.5).assigned)) == "46,XX"


def test_a_lost_copy_may_cost_more_than_a_gained_one() -> None:
    normal = clear(boxes_of("46,XX"))
    # Of 21, one has no box but one that is hardly a chromosome: odds of 13 to 1 against.
    gap = between(normal, boxes_of("46,XX").index(20), {20: 0.04, NONE: 0.93})
    assert count_classes(assign(gap, 0.5).assigned)[20] == 1
    assert count_classes(assign(gap, 0.5, 2.0).assigned)[20] == 2
    # A third copy as surely there as that one is not: a gain costs what it did.
    third = np.concatenate([normal, between(normal[:1], 0, {20: 0.85, NONE: 0.04})])
    for factor in (1.0, 2.0, 4.0):
        assert count_classes(assign(third, 0.5, factor).assigned)[20] == 3
    for factor in (0.5, math.inf, math.nan):
        with pytest.raises(DataError, match="loss factor"):
            assign(normal, 0.5, factor)


def test_infinite_strength_forces_46() -> None:
    trisomy = clear(boxes_of("47,XY,+21"), 0.99)
    assert format_karyotype(count_classes(assign(trisomy, math.inf).assigned)) == "46,XY"
    lacking = clear(boxes_of("44,XY,-3,-9"), 0.99)
    assert count_classes(assign(lacking, math.inf).assigned).sum() == 44


def test_the_prior_is_0_for_normal_cells_only_and_concave() -> None:
    assert log_prior(normal_counts((2, 0))) == log_prior(normal_counts((1, 1))) == 0
    for k in range(24):
        for sex in ((2, 0), (1, 1)):
            values = []
            for copies in range(8):
                counts = normal_counts(sex)
                counts[k] = copies
                values.append(log_prior(counts))
                assert values[-1] == pytest.approx(prior_by_hand(counts[None])[0])
            if k < 22:
                assert (np.diff(values, 2) <= 0).all()
    one_off = [log_prior(parse_karyotype(t)) for t in ("45,X", "47,XXY", "47,XYY", "47,XXX")]
    assert one_off == [-SEX_COST[0]] * 4
    assert log_prior(np.zeros(24, dtype=int)) > -math.inf


def test_an_empty_cell_and_zero_probabilities() -> None:
    empty = assign(np.zeros((0, 25)), 0.5)
    assert empty.assigned.shape == (0,)
    assert empty.objective == pytest.approx(0.5 * log_prior(np.zeros(24, dtype=int)))
    p = np.zeros((2, 25))
    p[:, 3] = 1.0
    assert assign(p, 0.5).assigned.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("probabilities", "strength"),
    [
        (np.zeros((3, 24)), 0.5),
        (np.full((1, 25), np.nan), 0.5),
        (np.full((1, 25), -0.1), 0.5),
        (clear([1]), -1.0),
        (clear([1]), math.nan),
    ],
)
def test_what_is_no_probability_or_strength_is_refused(
    probabilities: np.ndarray, strength: float
) -> None:
    with pytest.raises(DataError):
        assign(probabilities, strength)


def validation_cells() -> tuple[list[np.ndarray], list[list[int]]]:
    """Six cells whose 8 looks like a 9, and one with a trisomy that is not quite clear."""
    truth = boxes_of("46,XX")
    cells = [between(clear(truth), 14, {7: 0.3, 8: 0.65}) for _ in range(6)]
    labels = [truth] * 6
    extra = boxes_of("47,XX,+21")
    third = between(clear(extra), extra.index(20), {20: 0.9, NONE: 0.08})
    return [*cells, third], [*labels, extra]


def test_the_strength_mends_labels_but_keeps_aneuploid_cells() -> None:
    cells, labels = validation_cells()
    strength, results = choose_prior_strength(cells, labels, [0.25, 0.5, 2.0])
    by_strength = {r.strength: r for r in results}
    assert [r.strength for r in results] == [0.0, 0.25, 0.5, 2.0]
    assert by_strength[0.0].wrong == 6
    assert by_strength[0.5].wrong == 0
    assert by_strength[0.0].kept == by_strength[0.5].kept == by_strength[0.0].aneuploid == 1
    # exp(4 * 2) is more than the odds that the third 21 stands for.
    assert by_strength[2.0].kept == 0
    assert not by_strength[2.0].allowed
    assert (by_strength[0.0].detected, by_strength[2.0].detected) == (1.0, 0.0)
    assert strength == 0.25  # the weaker of two that correct all


def test_a_prior_that_hides_an_aneuploidy_is_not_chosen_though_it_mends_more() -> None:
    cells, labels = validation_cells()
    for n in range(6):
        cells[n] = between(clear(labels[n], 0.9999), 14, {7: 0.002, 8: 0.99})
    strength, results = choose_prior_strength(cells, labels, [2.0])
    assert results[1].wrong < results[0].wrong
    assert strength == 0.0


def test_validation_labels_have_to_fit() -> None:
    with pytest.raises(DataError, match="as many"):
        choose_prior_strength([clear([1])], [])
    with pytest.raises(DataError, match="2 boxes but 1 labels"):
        choose_prior_strength([clear([1, 2])], [[1]])
