from __future__ import annotations

import itertools

import numpy as np
import pytest

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED
from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.confidence import (
    cell_confidence,
    cell_doubts,
    fit_product,
    fit_weights,
    log_product,
    ranking_area,
    tied_share,
)
from deepacc_d2.karyotype.settings import DOUBTS, KaryotypeSettings

NONE = 24
NORMAL = [*np.repeat(np.arange(22), 2).tolist(), 22, 22]


def boxes_of(classes: list[int], sure: float) -> np.ndarray:
    p = np.full((len(classes), 25), (1 - sure) / 24)
    p[np.arange(len(classes)), classes] = sure
    return p


def test_the_product_of_what_the_boxes_and_the_prior_say() -> None:
    classes = NORMAL[:45]
    p = boxes_of(classes, 0.98)
    # One X is one copy off: 3 nats.
    assert log_product(p, classes) == pytest.approx(45 * np.log(0.98) - 3)
    p[0] = 0.0
    p[0, [0, NONE]] = 0.3, 0.7
    left = [LEFT_OUT, *classes[1:]]
    assert log_product(p, left) == pytest.approx(44 * np.log(0.98) + np.log(0.7) - 3 - 4)
    unclear = [UNIDENTIFIED, *classes[1:]]
    assert log_product(p, unclear) == pytest.approx(44 * np.log(0.98) + np.log(0.3) - 3 - 4)
    assert log_product(np.zeros((0, 25)), []) == -np.inf


def test_doubts_counted_by_hand() -> None:
    p = boxes_of(NORMAL, 0.98)
    p[0] = 0.0
    p[0, [0, 1, NONE]] = 0.5, 0.3, 0.2  # in doubt
    p[2] = 0.0
    p[2, [1, NONE]] = 0.4, 0.6  # left out
    p[4] = 0.0
    p[4, [2, 3, 4, 5, 6, NONE]] = 0.18, 0.17, 0.17, 0.17, 0.17, 0.14
    assigned = [0, 0, LEFT_OUT, 1, UNIDENTIFIED, *NORMAL[5:]]
    found = cell_doubts(p, assigned, 3, KaryotypeSettings())
    named = dict(zip(DOUBTS, found.tolist(), strict=True))
    wrong = 43 * 0.02 + 0.5 + 0.4 + 0.82
    assert named["expected_wrong"] == pytest.approx(np.log(0.1 + wrong))
    assert named["doubtful_share"] == pytest.approx(2 / 45)
    sure = np.log(0.98 / (0.02 / 24))
    lowest = [np.log(0.18 / 0.17), np.log(0.6 / 0.4), np.log(0.5 / 0.3), sure, sure]
    assert named["least_margins"] == pytest.approx(-np.arcsinh(np.mean(lowest)))
    assert named["off_46"] == pytest.approx(np.log(2))
    assert named["prior_cost"] == pytest.approx(np.log1p(4 + 4))  # a 2 and a 3 are lacking
    assert named["answers_differ"] == pytest.approx(np.log(4))
    assert named["unidentified"] == pytest.approx(np.log(2))
    assert not cell_doubts(np.zeros((0, 25)), [], 0, KaryotypeSettings()).any()


def test_no_two_cells_are_alike_however_bad_they_are() -> None:
    """The old confidence clipped the product at one in a million and was a constant from there."""
    rng = np.random.default_rng(3)
    weights = (1.5, *[0.5] * len(DOUBTS))
    for settings in (
        KaryotypeSettings(),
        KaryotypeSettings(cell_a=4.3, cell_b=0.74),
        KaryotypeSettings(cell_b=3.0),
        KaryotypeSettings(cell_weights=weights),
    ):
        found = []
        for sure in np.linspace(0.06, 0.95, 120):
            p = rng.dirichlet(np.full(25, 1.0), size=46) * (1 - sure)
            p[np.arange(46), NORMAL] += sure
            doubts = cell_doubts(p, NORMAL, 0, settings)
            found.append(cell_confidence(doubts, log_product(p, NORMAL), settings))
        assert tied_share(found) == 0
        assert 0 < min(found) < max(found) < 1
        # The surer the boxes, the surer the cell, but for the noise between neighbors.
        assert (np.diff(found[::20]) > 0).all()
    far = [cell_confidence([], -nats, KaryotypeSettings()) for nats in (700.0, 5000.0, 9000.0)]
    assert far[0] > far[1] > far[2] > 0


def test_more_doubt_never_makes_a_cell_surer() -> None:
    rng = np.random.default_rng(0)
    doubts = rng.normal(size=(300, len(DOUBTS)))
    # An outcome that contradicts the third doubt.
    right = doubts[:, 0] * 2 - doubts[:, 2] + rng.normal(size=300) < 0
    weights = fit_weights(doubts, right)
    assert len(weights) == 1 + len(DOUBTS)
    assert min(weights[1:]) >= 0
    assert weights[1] > 1
    assert weights[3] == 0
    settings = KaryotypeSettings(cell_weights=weights)
    for k in range(len(DOUBTS)):
        worse = doubts[0].copy()
        worse[k] += 1
        assert cell_confidence(worse, 0.0, settings) <= cell_confidence(doubts[0], 0.0, settings)


def test_the_fit_finds_the_weights_that_cells_were_drawn_with() -> None:
    rng = np.random.default_rng(1)
    doubts = rng.normal(size=(20000, len(DOUBTS)))
    true = np.array([0.5, 1.0, 0.0, 0.3, 2.0, 0.7, 0.1, 0.4])
    chance = 1 / (1 + np.exp(-(true[0] - doubts @ true[1:])))
    assert fit_weights(doubts, rng.random(20000) < chance) == pytest.approx(true, abs=0.1)


def test_too_few_cells_of_one_outcome_fit_nothing() -> None:
    doubts = np.random.default_rng(0).normal(size=(50, len(DOUBTS)))
    assert fit_weights(doubts, np.arange(50) < 9) == ()
    assert fit_weights(doubts, np.arange(50) >= 9) == ()
    assert fit_weights(doubts, np.arange(50) < 10) != ()
    with pytest.raises(DataError, match="expected"):
        fit_weights(doubts[:, 1:], np.arange(50) < 10)
    with pytest.raises(DataError):
        fit_weights(np.full_like(doubts, np.inf), np.arange(50) < 10)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1.0, 0.4), (-2.0, 0.8)])
def test_the_fit_of_the_product_finds_what_the_cells_were_drawn_with(a: float, b: float) -> None:
    rng = np.random.default_rng(1)
    raw = rng.random(8000)
    truth = 1 / (1 + np.exp(-(a + b * np.log(raw / (1 - raw)))))
    found = fit_product(np.log(raw), rng.random(8000) < truth)
    assert found == pytest.approx((a, b), abs=0.1)
    settings = KaryotypeSettings(cell_a=found[0], cell_b=found[1])
    confidences = [cell_confidence([], float(np.log(q)), settings) for q in raw[:50]]
    assert confidences == pytest.approx(truth[:50], abs=0.03)


def test_few_cells_or_one_outcome_stay_finite_and_modest() -> None:
    assert fit_product([], []) == (0.0, 1.0)
    for number in (1, 3, 40):
        raw = np.linspace(0.2, 0.8, number) if number > 1 else np.array([0.5])
        for outcome in (False, True):
            a, b = fit_product(np.log(raw), [outcome] * number)
            assert np.isfinite([a, b]).all()
            assert b >= 0
            sure = cell_confidence([], np.log(0.5), KaryotypeSettings(cell_a=a, cell_b=b))
            assert (0.5 < sure < 1) if outcome else (0 < sure < 0.5)
    # Outcomes that contradict the values do not turn the order round.
    _, b = fit_product(np.log([0.1, 0.9] * 50), [True, False] * 50)
    assert b == pytest.approx(0, abs=1e-6)
    with pytest.raises(DataError):
        fit_product([0.5], [True])
    with pytest.raises(DataError):
        fit_product([-0.5], [True, False])


def test_the_area_is_the_share_of_pairs_that_are_ordered_right() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        sure = rng.integers(0, 12, size=30) / 11  # with many ties
        right = rng.random(30) < 0.2 + 0.6 * sure
        if right.all() or not right.any():
            continue
        pairs = list(itertools.product(sure[right], sure[~right]))
        naive = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
        assert ranking_area(sure, right) == pytest.approx(naive)
    assert ranking_area([0.1, 0.2, 0.9], [False, False, True]) == 1
    assert np.isnan(ranking_area([0.1, 0.2], [True, True]))
    assert np.isnan(ranking_area([], []))
    with pytest.raises(DataError):
        ranking_area([0.1], [True, False])


def test_the_share_of_tied_cells() -> None:
    assert tied_share([0.1, 0.2, 0.1, 0.3, 0.1]) == pytest.approx(3 / 5)
    assert tied_share([0.1, 0.2]) == 0
    assert np.isnan(tied_share([]))
