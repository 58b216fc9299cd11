from __future__ import annotations

import json
import math

import numpy as np
import pytest

from deepacc_d2.errors import DataError
from deepacc_d2.karyotype.assignment import StrengthResult
from deepacc_d2.karyotype.calibration import apply_temperature
from deepacc_d2.karyotype.fit import KnownCell, box_labels, choose_loss_factor, fit_settings
from deepacc_d2.karyotype.interpret import interpret
from deepacc_d2.karyotype.iscn import parse_karyotype
from deepacc_d2.karyotype.scoring import Share, evaluate_cells, settings_record
from deepacc_d2.karyotype.settings import DOUBTS, KaryotypeSettings
from deepacc_d2.karyotype.table import evaluation_report

NONE = 24


def known(iscn: str, seed: int, temperature: float = 1.0) -> KnownCell:
    """A cell whose boxes are found, with noisy probabilities that a temperature sharpened.

    Labels are drawn from the true probabilities, so that these are calibrated but for it.
    """
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(24), parse_karyotype(iscn))
    x = 50.0 * np.arange(len(classes))
    zero = np.zeros(len(classes))
    boxes = np.stack([x, zero, x + 40, zero + 90], axis=1)
    p = np.full((len(classes), 25), 1e-4)
    for n, k in enumerate(classes):
        other = (k + 1) % 24
        share = rng.uniform(0.5, 1.0)
        right = rng.random() < share
        p[n, [k, other]] = (share, 1 - share) if right else (1 - share, share)
    p /= p.sum(axis=1, keepdims=True)
    return KnownCell(boxes, apply_temperature(p, 1 / temperature), boxes, classes, f"c{seed}")


def coco_of(cells: list[KnownCell], abnormal: dict[int, str] | None = None) -> dict:
    images, annotations = [], []
    for n, cell in enumerate(cells):
        image = {"id": n, "file_name": f"{n}.png", "width": 3000, "height": 100}
        if n in (abnormal or {}):
            image["abnormality"] = {"kind": abnormal[n], "count": 47, "description": ""}
        images.append(image)
        for (x0, y0, x1, y1), k in zip(cell.true_boxes, cell.true_classes, strict=True):
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": n, "category_id": int(k) + 1},
                    **{"bbox": box, "area": box[2] * box[3], "iscrowd": 0},
                }
            )
    categories = [{"id": k + 1, "name": str(k)} for k in range(24)]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_labels_are_matched_one_to_one_whatever_the_class() -> None:
    truth = [[0, 0, 10, 10], [100, 0, 110, 10]]
    boxes = [[0, 0, 10, 9], [0, 0, 10, 10], [100, 0, 110, 4.9], [50, 0, 60, 10], [100, 0, 110, 5]]
    p = np.full((5, 25), 0.01)
    p[:, NONE] = [0.05, 0.1, 0.01, 0.2, 0.3]
    # The first is surer than the second and takes its chromosome; the third overlaps too little.
    assert box_labels(boxes, p, truth, [6, 20]).tolist() == [6, NONE, NONE, NONE, 20]
    assert box_labels(boxes, p, [], []).tolist() == [NONE] * 5
    assert box_labels([], [], truth, [6, 20]).tolist() == []
    with pytest.raises(DataError, match="as many"):
        box_labels(boxes, p[:3], truth, [6, 20])


def test_what_was_put_in_is_fitted() -> None:
    cells = [known("46,XX" if n % 2 else "46,XY", n, temperature=2.0) for n in range(30)]
    settings, tried = fit_settings(cells, base=KaryotypeSettings(low_confidence=0.7))
    assert settings.temperature == pytest.approx(2.0, rel=0.2)
    assert settings.prior_strength > 0
    assert settings.low_confidence == 0.7
    best = next(each for each in tried if each.strength == settings.prior_strength)
    assert best.wrong < 0.8 * tried[0].wrong
    json.dumps(settings_record(settings, tried), allow_nan=False)


def test_nothing_to_fit_with_is_reported() -> None:
    empty = KnownCell(
        np.zeros((0, 4)), np.zeros((0, 25)), np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    )
    for cells in ([], [empty]):
        with pytest.raises(DataError, match="nothing to calibrate"):
            fit_settings(cells)
    settings, _ = fit_settings([empty, known("46,XX", 1)])
    plain = {name: value for name, value in settings.to_dict().items() if value is not None}
    assert np.isfinite(list(plain.values())).all()
    assert settings.cell_weights == ()


def test_few_cells_with_a_gain_allow_no_strong_prior() -> None:
    cells = [known("46,XX", seed) for seed in range(6)]
    cells += [known("45,X", seed) for seed in range(40, 52)]  # losses tell nothing of trisomies
    settings, tried = fit_settings(cells, strengths=[0.25, 1.0])
    assert [each.strength for each in tried] == [0.0, 0.25]
    assert settings.prior_strength == 0.25
    gains = [known("47,XX,+21", seed) for seed in range(20, 30)]
    assert len(fit_settings(cells + gains, strengths=[0.25, 1.0])[1]) == 3


def one_hot(classes: list[int], boxes: np.ndarray, truth: np.ndarray) -> KnownCell:
    p = np.full((len(classes), 25), 0.001)
    p[np.arange(len(classes)), classes] = 0.976
    return KnownCell(boxes[: len(classes)], p, boxes[: len(truth)], np.asarray(truth))


def test_scores_of_cells_that_were_counted_by_hand() -> None:
    boxes = known("48,XX,+8,+8", 0).true_boxes
    normal = np.repeat(np.arange(24), parse_karyotype("46,XX"))
    down = np.repeat(np.arange(24), parse_karyotype("47,XX,+21"))
    turner = np.repeat(np.arange(24), parse_karyotype("45,X"))
    swapped = [*normal]
    swapped[14] = 8  # an 8 that is taken for a 9
    cells = [
        one_hot(list(normal), boxes, normal),
        one_hot(swapped, boxes, normal),
        one_hot(list(down), boxes, down),
        one_hot(list(down[:46]), boxes, down),  # lacks an X: 46 chromosomes, abnormal all the same
        one_hot([*turner, 22], boxes, turner),  # a second X where there is none
    ]
    coco = coco_of(cells, {2: "number", 3: "structure", 4: "number"})
    settings = KaryotypeSettings(prior_strength=0.0)
    result = evaluate_cells(cells, coco, range(5), settings)
    scores = result.scores["by_box"]
    assert scores.to_dict() == result.scores["assigned"].to_dict()
    assert (scores.exact_counts.hits, scores.exact_counts.total) == (2, 5)
    assert (scores.specificity.hits, scores.specificity.total) == (1, 2)
    assert (scores.sensitivity.hits, scores.sensitivity.total) == (2, 3)
    assert (scores.exact_abnormal.hits, scores.exact_abnormal.total) == (1, 3)
    assert (scores.recorded.hits, scores.recorded.total) == (1, 2)
    assert scores.too_many[[8, 22]].tolist() == [1, 1]
    assert scores.too_few[[7, 22]].tolist() == [1, 1]
    assert scores.too_many.sum() == scores.too_few.sum() == 2
    # 231 chromosomes; right are all but the swapped one and the one not found; 2 are spurious.
    right, truth = 46 + 45 + 47 + 46 + 45, 46 + 46 + 47 + 47 + 45
    assert scores.recall == pytest.approx(100 * right / truth)
    assert scores.precision == pytest.approx(100 * right / (right + 2))
    assert scores.acc == pytest.approx(100 * right / (right + 2 + 2))
    assert scores.aer == pytest.approx(100 * 4 / truth)
    assert scores.wcr == pytest.approx(100 * 2 / 5)
    assert (result.changed, result.boxes) == (0, 46 + 46 + 47 + 46 + 46)
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_assignment_mends_what_the_counts_tell() -> None:
    cells = [known("46,XX", seed) for seed in range(8)]
    coco = coco_of(cells)
    result = evaluate_cells(cells, coco, range(8), KaryotypeSettings(prior_strength=0.75))
    before, after = result.scores["by_box"], result.scores["assigned"]
    assert after.acc > before.acc + 5
    assert after.exact_counts.hits > before.exact_counts.hits
    assert result.corrected > result.spoilt
    assert result.changed >= result.corrected + result.spoilt
    assert math.isnan(after.sensitivity.value)
    assert after.to_dict()["sensitivity"]["share"] is None


def test_wilson_intervals_known_from_the_literature() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert Share(hits, total).interval == pytest.approx((low, high), abs=5e-5)
    assert str(Share(0, 0)) == "none"
    assert str(Share(15, 148)) == "15 of 148, 10.1 % (6.2 to 16.0)"


def test_doubt_is_evaluated_beside_the_answers() -> None:
    cells = [known("46,XX", seed) for seed in range(6)]
    # 30 chromosomes of a cell of which only these were found, and one with a box of no class.
    few = KnownCell(
        cells[0].boxes[:30], cells[0].probabilities[:30], cells[0].true_boxes, cells[0].true_classes
    )
    p = cells[1].probabilities.copy()
    p[0] = [0.9 / 24] * 24 + [0.1]
    unclear = KnownCell(cells[1].boxes, p, cells[1].true_boxes, cells[1].true_classes)
    cells += [few, unclear]
    settings = KaryotypeSettings(most_doubtful=1.0)
    result = evaluate_cells(cells, coco_of(cells), range(8), settings)
    found = [interpret(c.boxes, c.probabilities, settings) for c in cells]
    right = [(f.counts == c.counts).all() for f, c in zip(found, cells, strict=True)]
    sure = [f.confidence for f in found]
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, own in zip(sure, right, strict=True)
        for b, other in zip(sure, right, strict=True)
        if own and not other
    ]
    assert result.ranking == pytest.approx(np.mean(pairs))
    assert result.tied == 0
    assert (result.unfit.hits, result.unfit.total) == (1, 8)
    assert (result.unfit_right.hits, result.unfit_right.total) == (0, 1)
    assert (result.unidentified.hits, result.unidentified.total) == (1, 7 * 46 + 30)
    assert (result.right_total.hits, result.right_total.total) == (7, 8)
    text = evaluation_report(result, settings, [], title="a test", fitted=result)
    assert "| boxes that are unidentified, as fitted" in text
    assert f"{result.ranking:.3f}" in text
    json.dumps(result.to_dict(), allow_nan=False)


def test_weights_are_fitted_where_cells_of_either_outcome_are_enough() -> None:
    noisy = [known("46,XX", seed) for seed in range(14)]
    clear = [one_hot(list(c.true_classes), c.true_boxes, c.true_classes) for c in noisy]
    settings, _ = fit_settings([*noisy, *clear], strengths=[0.25])
    assert len(settings.cell_weights) == 1 + len(DOUBTS)
    assert KaryotypeSettings.from_dict(settings.to_dict()) == settings
    sure = [interpret(c.boxes, c.probabilities, settings).confidence for c in [*noisy, *clear]]
    assert min(sure[14:]) > 0.8
    assert max(sure[:14]) < 0.4
    # All of one outcome: nothing separates the doubts, and the product stands in for them.
    only, _ = fit_settings(clear, strengths=[0.25])
    assert only.cell_weights == ()


def test_a_loss_factor_may_neither_hide_losses_nor_make_many_boxes_wrong() -> None:
    def result(factor: float, wrong: int, noticed: int, *, allowed: bool = True) -> StrengthResult:
        known = {"boxes": 1000, "kept": 0, "aneuploid": 0, "detected": 1.0, "false": 0.0}
        more = {"losses": 100, "detected_losses": noticed, "loss_factor": factor}
        return StrengthResult(0.5, wrong, allowed=allowed, **known, **more)

    first = result(1.0, 50, 80)
    tried = [
        result(1.5, 55, 76),
        result(2.0, 56, 80),
        result(2.5, 50, 75),
        result(3.0, 50, 80, allowed=False),
    ]
    chosen = choose_loss_factor(first, tried, most_wrong=55)
    assert [each.allowed for each in chosen] == [True, False, False, False]
