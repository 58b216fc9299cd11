from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.calibration import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    plot_reliability,
    reliability,
)


def drawn(temperature: float, number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and these probabilities made too sure by a temperature."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.standard_normal((number, 25))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > rng.random((number, 1))).argmax(axis=1)
    return np.log(p) * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    logs, labels = drawn(temperature, 6000)
    assert fit_temperature(logs, labels) == pytest.approx(temperature, rel=0.06)


def test_no_temperature_of_a_grid_is_better() -> None:
    logs, labels = drawn(1.7, 300, seed=3)
    found = fit_temperature(logs, labels)

    def loss(t: float) -> float:
        z = logs / t
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())

    assert loss(found) <= min(loss(t) for t in np.geomspace(0.1, 10, 400)) + 1e-7


def test_calibration_lessens_the_expected_error_and_keeps_the_order() -> None:
    logs, labels = drawn(3.0, 4000, seed=1)
    p = np.exp(logs - logs.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    calibrated = apply_temperature(p, fit_temperature(np.log(p), labels))
    assert (calibrated.argmax(axis=1) == p.argmax(axis=1)).all()
    right = p.argmax(axis=1) == labels
    before = expected_calibration_error(p.max(axis=1), right)
    after = expected_calibration_error(calibrated.max(axis=1), right)
    assert before > 0.15
    assert after < 0.04


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.05, 20),
    zeros=st.integers(0, 24),
)
def test_probabilities_stay_probabilities(seed: int, temperature: float, zeros: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(25, 0.3), size=5)
    p[:, :zeros] = 0
    p /= p.sum(axis=1, keepdims=True)
    result = apply_temperature(p, temperature)
    assert np.isfinite(result).all()
    assert result.sum(axis=1) == pytest.approx(1)
    expected = p ** (1 / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    # A probability of 0 counts as e**-80, which a temperature of 20 raises to 2 percent.
    if temperature < 3:
        assert result == pytest.approx(expected, abs=1e-9)


def test_a_temperature_of_1_changes_nothing() -> None:
    p = np.array([[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]])
    assert apply_temperature(p, 1.0) == pytest.approx(p)
    assert apply_temperature(np.zeros((0, 25)), 2.0).shape == (0, 25)


def test_separable_or_no_labels_have_a_temperature_too() -> None:
    assert fit_temperature(np.zeros((0, 25)), []) == 1.0
    logs = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert 0.05 <= fit_temperature(logs, [0, 1]) < 0.06
    assert fit_temperature(logs, [1, 0]) == pytest.approx(20, rel=0.01)
    with np.errstate(divide="ignore"):
        assert fit_temperature(np.log([[1.0, 0.0], [1.0, 0.0]]), [0, 1]) > 10


def test_the_expected_error_of_a_table_by_hand() -> None:
    # Two bins: (0.3, 0.4) of which one right, (0.9, 1.0) both right.
    table = reliability([0.3, 0.4, 0.9, 1.0], [0, 1, 1, 1], bins=2)
    assert table.edges.tolist() == [0, 0.5, 1]
    assert table.confidence == pytest.approx([0.35, 0.95])
    assert table.accuracy == pytest.approx([0.5, 1.0])
    assert table.count.tolist() == [2, 2]
    assert table.error == pytest.approx((0.15 + 0.05) / 2)
    assert expected_calibration_error([0.3, 0.4, 0.9, 1.0], [0, 1, 1, 1], bins=2) == table.error


def test_edges_belong_to_the_lower_bin() -> None:
    table = reliability([0.0, 0.5, 0.51, 1.0], [0, 0, 1, 1], bins=2)
    assert table.count.tolist() == [2, 2]
    assert math.isnan(reliability([], []).error)
    assert reliability([0.1], [0], bins=3).to_dict()["confidence"] == [0.1, None, None]


def test_the_diagram_has_both_panels() -> None:
    sure = np.linspace(0, 1, 50)
    table = reliability(sure, sure > 0.5)
    figure = plot_reliability(table, reliability([], []))
    titles = [axes.get_title() for axes in figure.axes]
    assert any(t.startswith("before calibration") for t in titles)
    assert any(t == "after calibration: expected calibration error none" for t in titles)
    heights = [patch.get_height() for patch in figure.axes[0].patches[: (table.count > 0).sum()]]
    assert heights == pytest.approx(table.accuracy[table.count > 0])


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_impossible_temperatures_are_refused(temperature: float) -> None:
    with pytest.raises(DataError, match="temperature"):
        apply_temperature(np.full((1, 25), 0.04), temperature)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="do not fit"):
        fit_temperature(np.zeros((3, 25)), [1, 2])
    with pytest.raises(DataError, match="outside"):
        fit_temperature(np.zeros((1, 25)), [25])
    with pytest.raises(DataError, match="no probability"):
        apply_temperature([[math.nan, 1.0]], 1.0)
    with pytest.raises(DataError, match="outside 0 to 1"):
        reliability([1.2], [1])
    with pytest.raises(DataError, match="as many"):
        reliability([0.2, 0.3], [1])
