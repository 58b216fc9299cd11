from __future__ import annotations

import numpy as np
import pytest

from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.review import (
    cell_confidence,
    fit_cell_confidence,
    overlap_of_smaller,
    raw_cell_confidence,
    review_order,
)
from deepacc_d2.prediction.types import LEFT_OUT, Cell, Chromosome


def test_overlap_is_a_share_of_the_smaller_box() -> None:
    boxes = [[0, 0, 10, 10], [5, 5, 15, 15], [2, 2, 4, 4], [50, 50, 60, 60], [3, 3, 3, 9]]
    share = overlap_of_smaller(boxes)
    assert share[0].tolist() == [0, 0.25, 1.0, 0, 0]
    assert share[0, 2] == share[2, 0]
    assert overlap_of_smaller([]).shape == (0, 0)


def test_the_raw_confidence_is_the_product_of_what_the_boxes_and_the_prior_say() -> None:
    p = np.full((45, 25), 0.02 / 24)
    classes = [*np.repeat(np.arange(22), 2), 22]
    p[np.arange(45), classes] = 0.98
    # One X is one copy off: exp(-3).
    assert raw_cell_confidence(p, classes) == pytest.approx(0.98**45 * np.exp(-3))
    p[0] = 0.0
    p[0, [0, 24]] = 0.3, 0.7
    left = [LEFT_OUT, *classes[1:]]
    assert raw_cell_confidence(p, left) == pytest.approx(0.98**44 * 0.7 * np.exp(-3 - 4))
    assert raw_cell_confidence(np.zeros((0, 25)), []) == 0


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (1.0, 0.4), (-2.0, 0.8)])
def test_the_fit_finds_what_the_cells_were_drawn_with(a: float, b: float) -> None:
    rng = np.random.default_rng(1)
    raw = rng.random(8000)
    truth = 1 / (1 + np.exp(-(a + b * np.log(raw / (1 - raw)))))
    found = fit_cell_confidence(raw, rng.random(8000) < truth)
    assert found == pytest.approx((a, b), abs=0.1)
    assert [cell_confidence(q, *found) for q in raw[:50]] == pytest.approx(truth[:50], abs=0.03)


def test_few_cells_or_one_outcome_stay_finite_and_modest() -> None:
    assert fit_cell_confidence([], []) == (0.0, 1.0)
    for number in (1, 3, 40):
        raw = np.linspace(0.2, 0.8, number) if number > 1 else np.array([0.5])
        for outcome in (False, True):
            a, b = fit_cell_confidence(raw, [outcome] * number)
            assert np.isfinite([a, b]).all()
            assert b >= 0
            sure = cell_confidence(0.5, a, b)
            assert (0.5 < sure < 1) if outcome else (0 < sure < 0.5)
    a, b = fit_cell_confidence([0.0, 1.0, 0.0, 1.0], [False, True, False, True])
    assert cell_confidence(1.0, a, b) < 1
    # Outcomes that contradict the values do not turn the order round.
    assert fit_cell_confidence([0.1, 0.9] * 50, [True, False] * 50)[1] == pytest.approx(0, abs=1e-6)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(DataError):
        fit_cell_confidence([1.5], [True])
    with pytest.raises(DataError):
        fit_cell_confidence([0.5], [True, False])


def cell(name: str, confidence: float, flags: tuple[str, ...], extra: int | None = None) -> Cell:
    p = np.full(25, 0.04)
    classes = [*np.repeat(np.arange(22), 2), 22, 22]
    found = [Chromosome((0, 0, 1, 1), p, int(k), int(k), 0.9) for k in classes]
    if extra is not None:
        found.append(Chromosome((0, 0, 1, 1), p, extra, extra, 0.95))
    return Cell(name, "", 9, 9, found, "", "", confidence, flags)


def test_the_order_of_review() -> None:
    fine = cell("fine", 0.1, ())
    odd = cell("odd", 0.9, ("abnormal",), extra=20)
    doubtful = cell("doubtful", 0.3, ("low_confidence",))
    doubtful.chromosomes[3].flags = ("touching",)
    doubtful.chromosomes[3].confidence = 0.1
    doubtful.chromosomes[7].flags = ("low_confidence",)
    doubtful.chromosomes[7].confidence = 0.5
    doubtful.chromosomes[9].flags = ("low_confidence", "touching")
    doubtful.chromosomes[9].confidence = 0.4
    items = review_order([odd, fine, doubtful])
    assert [(i.cell, i.chromosome) for i in items] == [
        *(("doubtful", None), ("doubtful", 9), ("doubtful", 7), ("doubtful", 3)),
        *(("odd", None), ("odd", 40), ("odd", 41), ("odd", 46)),
    ]
    assert items[-1].reasons == ("abnormal_class",)
    assert review_order([]) == []
