from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deepacc_d2.karyotype.fit import CAUTIOUS_STRENGTH, ENOUGH_LOSSES, fit_settings
from deepacc_d2.karyotype.iscn import parse_karyotype
from deepacc_d2.karyotype.known import KnownCell
from deepacc_d2.karyotype.made import (
    ENOUGH_CLEAR_GAINS,
    Made,
    number_of_clear_gains,
    outcome,
    score_cells,
    score_made,
)
from deepacc_d2.karyotype.settings import KaryotypeSettings

NONE = 24


def cell(classes: list[int], odds: dict[int, dict[int, float]] | None = None) -> KnownCell:
    """A cell whose boxes are found and sure, except those (by row) that ``odds`` names."""
    x = 50.0 * np.arange(len(classes))
    zero = np.zeros(len(classes))
    boxes = np.stack([x, zero, x + 40, zero + 90], axis=1)
    p = np.full((len(classes), 25), 1e-6)
    p[np.arange(len(classes)), classes] = 1.0
    for row, own in (odds or {}).items():
        p[row] = 1e-6
        for k, value in own.items():
            p[row, k] = value
    return KnownCell(boxes, p / p.sum(axis=1, keepdims=True), boxes, np.array(classes))


def classes_of(iscn: str) -> list[int]:
    return [k for k, n in enumerate(parse_karyotype(iscn)) for _ in range(n)]


def gain(k: int, odds: dict[int, float] | None = None) -> Made:
    """A cell with an inserted k, the last, whose probabilities may be given."""
    classes = [*classes_of("46,XY"), k]
    return Made(cell(classes, {46: odds} if odds else None), True, k)


def loss(k: int) -> Made:
    classes = classes_of("46,XY")
    classes.remove(k)
    return Made(cell(classes), False, k)


def prior(strength: float) -> KaryotypeSettings:
    return KaryotypeSettings(prior_strength=strength)


def test_a_clear_gain_is_kept_and_an_unsure_one_is_dropped_by_a_strong_prior() -> None:
    sure, unsure = gain(20), gain(20, {20: 0.9, NONE: 0.1})
    for made in (sure, unsure):
        found = outcome(made, prior(0.0))
        assert (found.found, found.named, found.clear) == (True, True, True)
        assert (found.counted, found.true, found.kept) == ((3, 3), 3, 3)
    # Odds of 9 to 1 are below exp(4 x 1), those of the sure one far above.
    assert outcome(sure, prior(1.0)).counted == (3, 3)
    dropped = outcome(unsure, prior(1.0))
    assert (dropped.counted, dropped.kept) == ((3, 2), 2)
    assert (dropped.named, dropped.clear) == (True, True)


def test_a_gain_is_clear_only_if_its_own_box_and_the_count_tell_it() -> None:
    misnamed = gain(20, {21: 0.9, 20: 0.1})
    found = outcome(misnamed, prior(0.0))
    assert (found.found, found.named, found.clear, found.counted) == (
        True,
        False,
        False,
        (2, 2),
    )
    # Named right, but of low confidence: flagged, so not clear.
    found = outcome(gain(20, {20: 0.7, NONE: 0.3}), prior(0.0))
    assert (found.found, found.named, found.clear, found.counted) == (True, True, False, (3, 3))
    # Sure itself, but one of the others is not.
    row = classes_of("46,XY").index(20)
    shy = Made(cell([*classes_of("46,XY"), 20], {row: {20: 0.7, NONE: 0.3}}), True, 20)
    found = outcome(shy, prior(0.0))
    assert (found.found, found.named, found.clear, found.counted) == (True, True, False, (3, 3))
    # The inserted one is named right, but another of the class is not: two are counted.
    base = gain(20).cell
    p = base.probabilities.copy()
    row = base.true_classes.tolist().index(20)
    p[row, [20, 21]] = p[row, [21, 20]]
    other = Made(KnownCell(base.boxes, p, base.true_boxes, base.true_classes), True, 20)
    found = outcome(other, prior(0.0))
    assert (found.found, found.named, found.counted) == (True, False, (2, 2))
    # Not found at all.
    missed = KnownCell(base.boxes[:46], base.probabilities[:46], base.true_boxes, base.true_classes)
    found = outcome(Made(missed, True, 20), prior(0.0))
    assert (found.found, found.named, found.counted) == (False, False, (2, 2))


def test_scores_of_made_cells_counted_by_hand() -> None:
    made = [
        *(gain(20), gain(20, {20: 0.9, NONE: 0.1}), gain(7, {8: 0.8, 7: 0.2}), gain(22)),
        *(loss(20), loss(0)),
    ]
    scores = score_made(made, KaryotypeSettings(prior_strength=1.0), not_made=3)
    assert (scores.found.hits, scores.found.total) == (4, 4)
    assert [(s.hits, s.total) for s in scores.gains] == [(3, 4), (2, 4)]
    assert [(s.hits, s.total) for s in scores.losses] == [(2, 2), (2, 2)]
    assert [(s.hits, s.total) for s in scores.gains_by_group["G"]] == [(2, 2), (1, 2)]
    assert [(s.hits, s.total) for s in scores.gains_by_group["C"]] == [(1, 2), (1, 2)]
    assert sum(s.total for s, _ in scores.losses_by_group.values()) == 2
    assert (scores.clear_kept.hits, scores.clear_kept.total) == (2, 3)
    assert (scores.named_kept.hits, scores.named_kept.total) == (2, 3)
    assert (scores.three_kept.hits, scores.three_kept.total) == (2, 3)
    plain = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert plain["gains"]["assigned"]["hits"] == 2
    assert plain["not_made"] == 3


def test_whole_cells_counted_by_hand() -> None:
    down = classes_of("47,XX,+21")
    confused = cell(classes_of("46,XX"), {14: {8: 0.7, 7: 0.3}})  # an 8 that looks like a 9
    cells = [
        cell(classes_of("46,XX")),
        confused,
        cell(down),
        cell(down, {down.index(20): {20: 0.9, NONE: 0.1}}),
        cell(classes_of("47,XXY")),
        cell(classes_of("45,X")),
    ]
    scores = score_cells(cells, KaryotypeSettings(prior_strength=1.0))
    pairs = {name: [(s.hits, s.total) for s in getattr(scores, name)] for name in scores.to_dict()}
    total = 46 + 46 + 47 + 47 + 47 + 45
    assert pairs["named"] == [(total - 1, total), (total - 1, total)]
    assert pairs["gained"] == [(3, 3), (2, 3)]
    assert pairs["called"] == [(3, 3), (2, 3)]
    assert pairs["no_false_gain"] == [(2, 3), (3, 3)]
    assert pairs["no_false_loss"] == [(4, 5), (5, 5)]
    assert pairs["normal"] == [(1, 2), (2, 2)]


def confused_cells() -> list[KnownCell]:
    """Normal cells whose 8 looks like a 9, which a prior above 0.5 corrects; one is a trisomy."""
    odds = {14: {8: 0.995, 7: 0.005}}
    return [cell(classes_of("46,XX"), odds) for _ in range(8)]


STRENGTHS = [0.25, 0.75, 1.5]


def test_clear_inserted_homologs_allow_a_stronger_prior() -> None:
    cells = confused_cells()
    settings, tried = fit_settings(cells, STRENGTHS)
    assert settings.prior_strength <= CAUTIOUS_STRENGTH
    assert [each.strength for each in tried] == [0.0, 0.25]
    made = [gain(k % 24) for k in range(ENOUGH_CLEAR_GAINS)] + [loss(k) for k in range(24)]
    settings, tried = fit_settings(cells, STRENGTHS, made=made)
    assert settings.prior_strength == 0.75
    assert [each.kept_gains for each in tried] == [ENOUGH_CLEAR_GAINS] * 4
    assert [each.kept_named_gains for each in tried] == [ENOUGH_CLEAR_GAINS] * 4
    assert [each.detected_losses for each in tried] == [24] * 4
    assert [each.right for each in tried] == [0, 0, 8, 8]
    # One too few: the old rule.
    settings, tried = fit_settings(cells, STRENGTHS, made=made[1:])
    assert settings.prior_strength <= CAUTIOUS_STRENGTH
    assert tried[-1].clear_gains == ENOUGH_CLEAR_GAINS - 1


@pytest.mark.parametrize(("filled", "chosen"), [(3, 3.0), (4, 1.5)])
def test_a_loss_factor_that_hides_more_than_one_loss_in_20_is_not_allowed(
    filled: int, chosen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepacc_d2.karyotype.fit.fit_temperature", lambda *_: 1.0)
    # A chromosome that is hardly seen: odds of 20 to 1, of 55 to 1 (exp(4)) and of 400 to 1 are
    # overcome by a gap that is worth 2, 4 and 6 nats at strength 0.5 and factors 1, 2 and 3.
    pale = [{row: {k: 0.04, NONE: 0.8}} for row, k in ((40, 20), (42, 21), (30, 15))]
    faint = {40: {20: 0.01, NONE: 0.99}}
    cells = [cell(classes_of("46,XX"), odds) for odds in [*pale, faint, None, None]]
    # One of them is to choose strength 0.5 for.
    cells.append(cell(classes_of("46,XX"), {14: {8: 0.9, 7: 0.1}}))
    gap = loss(20)
    # A removed chromosome in whose place something else waits, 300 to 1 against.
    waiting = np.full((1, 25), 1e-9)
    waiting[0, [20, NONE]] = 1 / 301, 300 / 301
    tempting = Made(
        replace(
            gap.cell,
            boxes=np.concatenate([gap.cell.boxes, [[9000.0, 0, 9040, 90]]]),
            probabilities=np.concatenate([gap.cell.probabilities, waiting]),
        ),
        False,
        20,
    )
    made = [gain(k % 22) for k in range(ENOUGH_CLEAR_GAINS)]
    made += [tempting] * filled + [loss(k % 22) for k in range(ENOUGH_LOSSES - filled)]
    settings, tried = fit_settings(cells, [0.5], made=made)
    factors = {each.loss_factor: each for each in tried if each.strength == 0.5}
    assert [factors[f].right for f in (1.0, 2.0, 3.0)] == [3, 6, 7]
    assert [factors[f].detected_losses for f in (1.0, 3.0)] == [
        ENOUGH_LOSSES,
        ENOUGH_LOSSES - filled,
    ]
    assert (settings.prior_strength, settings.loss_factor) == (0.5, chosen)
    assert factors[3.0].allowed == (chosen == 3.0)
    # One removed chromosome too few: none is tried.
    settings, tried = fit_settings(cells, [0.5], made=made[:-1])
    assert (settings.loss_factor, len(tried)) == (1.0, 2)


@pytest.mark.parametrize(("unsure", "chosen"), [(5, 0.75), (6, 0.25)])
def test_a_strength_that_hides_more_than_one_clear_gain_in_20_is_not_allowed(
    unsure: int, chosen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepacc_d2.karyotype.fit.fit_temperature", lambda *_: 1.0)
    # Odds of 9 to 1: kept at 0.25 and 0.5 (exp(2) = 7.4), hidden at 0.75 (exp(3) = 20).
    made = [gain(20, {20: 0.9, NONE: 0.1}) for _ in range(unsure)]
    made += [gain(n % 22) for n in range(ENOUGH_CLEAR_GAINS - unsure)]
    assert number_of_clear_gains(made, KaryotypeSettings()) == ENOUGH_CLEAR_GAINS
    mild = [cell(classes_of("46,XX"), {14: {8: 0.8, 7: 0.2}}) for _ in range(2)]
    cells = [*confused_cells(), *mild]
    settings, tried = fit_settings(cells, STRENGTHS, made=made)
    by_strength = {each.strength: each for each in tried}
    assert by_strength[0.75].allowed == (by_strength[0.75].kept_gains >= 95)
    assert settings.prior_strength == chosen
