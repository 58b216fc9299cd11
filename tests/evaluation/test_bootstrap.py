from __future__ import annotations

import copy

import numpy as np
import pytest

from deepacc_d2.chromosomes import DENVER_GROUPS
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.bootstrap import METRICS, compare_presets
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.tally import ERRORS, GROUPS, tally_run
from deepacc_d2.evaluation.types import ImagePrediction


def changed(predictions: list[ImagePrediction], seed: int) -> list[ImagePrediction]:
    """The same boxes with other scores, as another run would give them."""
    rng = np.random.default_rng(seed)
    return [
        ImagePrediction(
            p.image_id,
            p.boxes,
            rng.permutation(p.scores),
            p.classes,
            p.top1_boxes,
            rng.permutation(p.top1_scores),
            p.top1_classes,
        )
        for p in predictions
    ]


def drawn_images(
    coco: dict, predictions: list[ImagePrediction], times: np.ndarray
) -> tuple[dict, list[ImagePrediction]]:
    """Copies every image as often as it was drawn, each copy an image of its own."""
    images, annotations, found = [], [], []
    by_id = {p.image_id: p for p in predictions}
    for image, number in zip(coco["images"], times, strict=True):
        for turn in range(number):
            new = 1000 * image["id"] + turn
            images.append({**image, "id": new})
            annotations += [
                {**a, "image_id": new} for a in coco["annotations"] if a["image_id"] == image["id"]
            ]
            found.append(copy.copy(by_id[image["id"]]))
            object.__setattr__(found[-1], "image_id", new)
    return {**coco, "images": images, "annotations": annotations}, found


def values(metrics) -> list[float]:
    return [getattr(metrics, key) for key in METRICS]


@pytest.mark.parametrize(
    ("crowded", "settings"),
    [
        (False, {}),
        (True, {}),
        (True, {"max_detections": 20, "score_threshold": 0.3, "iou_threshold": 0.6}),
        (True, {"agnostic_nms": 0.4, "class_nms": 0.3}),
    ],
)
def test_values_are_those_of_the_metrics(make_case, crowded, settings):
    coco, predictions = make_case(1, num_images=8, crowded=crowded)
    runs = [predictions, changed(predictions, 5)]
    expected = [compute_metrics(coco, run, **settings) for run in runs]
    tallies = [tally_run(coco, run, **settings) for run in runs]
    # No reference, so no resamples; the default number must not be drawn.
    found = compare_presets({"aam": tallies})["aam"]
    rows = np.array([values(metrics) for metrics in expected])
    np.testing.assert_allclose(found.metrics.values, rows, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.metrics.mean, (rows[0] + rows[1]) / 2)
    np.testing.assert_allclose(found.metrics.sd, abs(rows[0] - rows[1]) / np.sqrt(2), atol=1e-9)
    assert found.metrics.difference is None
    for run, metrics in enumerate(expected):
        for kind, key in enumerate(ERRORS[:-1]):
            counts = [metrics.per_group[group][key] for group in DENVER_GROUPS]
            assert found.errors.values[run, kind].tolist() == [sum(counts), *counts]
        total = metrics.confusion.sum() - np.trace(metrics.confusion)
        assert found.errors.values[run, ERRORS.index("errors"), GROUPS.index("all")] == total


def test_one_run_has_no_deviation(make_case):
    coco, predictions = make_case(0)
    found = compare_presets({"aam": [tally_run(coco, predictions)]})["aam"]
    assert np.isnan(found.metrics.sd).all()
    assert np.isfinite(found.metrics.mean).all()


def test_intervals_equal_those_of_copied_images(make_case):
    coco, predictions = make_case(2, num_images=5)
    runs = {
        "sep": [predictions, changed(predictions, 1)],
        "aam": [changed(predictions, 2)],
    }
    resamples, seed = 6, 11
    tallies = {preset: [tally_run(coco, run) for run in own] for preset, own in runs.items()}
    found = compare_presets(tallies, resamples=resamples, seed=seed)
    assert found["sep"].metrics.difference is None

    draws = np.random.default_rng(seed).multinomial(5, np.full(5, 0.2), size=resamples)
    assert draws.max() > 1
    differences, missed = [], []
    for times in draws:
        results = {
            preset: [compute_metrics(*drawn_images(coco, run, times)) for run in own]
            for preset, own in runs.items()
        }
        means = {
            preset: np.mean([values(metrics) for metrics in own], axis=0)
            for preset, own in results.items()
        }
        differences.append(means["aam"] - means["sep"])
        counts = {
            preset: np.mean([metrics.per_group["C"]["missed"] for metrics in own])
            for preset, own in results.items()
        }
        missed.append(counts["aam"] - counts["sep"])
    low, high = np.percentile(differences, [2.5, 97.5], axis=0)
    aam = found["aam"].metrics
    np.testing.assert_allclose(aam.low, low, rtol=0, atol=1e-4)
    np.testing.assert_allclose(aam.high, high, rtol=0, atol=1e-4)
    np.testing.assert_allclose(aam.difference, aam.mean - found["sep"].metrics.mean, atol=1e-12)
    assert (high - low).min() > 0.1
    cell = ERRORS.index("missed"), GROUPS.index("C")
    interval = [found["aam"].errors.low[cell], found["aam"].errors.high[cell]]
    np.testing.assert_allclose(interval, np.percentile(missed, [2.5, 97.5]), atol=1e-4)


def test_the_same_predictions_differ_by_nothing(make_case):
    coco, predictions = make_case(3)
    tallies = [tally_run(coco, run) for run in (predictions, changed(predictions, 1))]
    found = compare_presets({"sep": tallies, "copy": list(tallies)}, resamples=150)["copy"]
    for estimate in (found.metrics, found.errors):
        for part in (estimate.difference, estimate.low, estimate.high):
            assert (part == 0).all()


def test_an_interval_known_beforehand():
    # Two images of one chromosome each; "sep" finds none, "aam" the first one alone. A resample
    # draws the first image 0, 1 or 2 times (1/4, 1/2, 1/4): recall and all rates 0, 50 or 100.
    coco = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 5, "bbox": [0, 0, 10, 10], "area": 100}
            for i in (1, 2)
        ],
    }
    box = ([[0, 0, 10, 10]], [0.9], [4])
    found = compare_presets(
        {
            "sep": [tally_run(coco, [])],
            "aam": [tally_run(coco, [ImagePrediction(1, *box, *box)])],
        },
        resamples=400,
    )["aam"]
    signs = dict(zip(METRICS, (1, 1, -1, 1), strict=True))
    for column, (_, sign) in enumerate(signs.items()):
        assert found.metrics.difference[column] == sign * 50
        assert sorted([sign * found.metrics.low[column], sign * found.metrics.high[column]]) == [
            0,
            100,
        ]


def test_images_without_ground_truth_have_no_say():
    # Half of the resamples or so draw the empty image alone: no rate is defined there.
    coco = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}
        ],
    }
    box = ([[0, 0, 9, 9]], [0.9], [0])
    run = tally_run(coco, [ImagePrediction(1, *box, *box)])
    found = compare_presets({"sep": [run], "aam": [tally_run(coco, [])]}, resamples=50)["aam"]
    assert found.metrics.low.tolist() == [-100, -100, 100, -100]
    assert found.metrics.high.tolist() == [-100, -100, 100, -100]
    empty = {**coco, "annotations": []}
    runs = {name: [tally_run(empty, [])] for name in ("sep", "aam")}
    nothing = compare_presets(runs, resamples=5)["aam"].metrics
    assert np.isnan([nothing.mean, nothing.difference, nothing.low, nothing.high]).all()


def test_seed_and_chunks(make_case):
    coco, predictions = make_case(4)
    runs = {
        "sep": [tally_run(coco, predictions)],
        "aam": [tally_run(coco, changed(predictions, 1))],
    }
    ends = [compare_presets(runs, resamples=150, seed=s)["aam"].metrics.low for s in (0, 0, 1)]
    np.testing.assert_array_equal(ends[0], ends[1])
    assert (ends[0] != ends[2]).any()


def test_what_cannot_be_compared(make_case):
    coco, predictions = make_case(0)
    run = tally_run(coco, predictions)
    other = tally_run(make_case(1)[0], make_case(1)[1])
    with pytest.raises(ConfigError, match="preset 'aam' has no run"):
        compare_presets({"sep": [run], "aam": []})
    with pytest.raises(ConfigError, match="resamples is 0"):
        compare_presets({"sep": [run]}, resamples=0)
    with pytest.raises(DataError, match="different images"):
        compare_presets({"sep": [run], "aam": [other]})
    with pytest.raises(DataError, match="no image"):
        tally_run({"images": [], "annotations": []}, [])


def test_whole_cases_are_drawn(make_case):
    coco, predictions = make_case(2, num_images=6)
    # Not in the order of their ids; the last one has no case and so is one of its own.
    names = {1: "b", 2: "a", 3: "b", 4: "c", 5: "a", 6: None}
    ids = sorted(image["id"] for image in coco["images"])
    case_of = dict(zip(ids, names.values(), strict=True))
    images = [{**image, "case_id": case_of[image["id"]]} for image in reversed(coco["images"])]
    coco = {**coco, "images": images}
    runs = {"sep": predictions, "aam": changed(predictions, 2)}
    tallies = {preset: [tally_run(coco, own)] for preset, own in runs.items()}
    assert tallies["sep"][0].cases.tolist() == [0, 1, 0, 2, 1, 3]
    resamples, seed = 12, 4
    found = compare_presets(tallies, resamples=resamples, seed=seed)["aam"].metrics

    draws = np.random.default_rng(seed).multinomial(4, np.full(4, 0.25), size=resamples)
    differences = []
    for times in draws:
        copies = dict(zip("bac", times, strict=False)) | {None: times[3]}
        drawn = np.array([copies[image["case_id"]] for image in images])
        sep, aam = (
            values(compute_metrics(*drawn_images(coco, run, drawn))) for run in runs.values()
        )
        differences.append(np.subtract(aam, sep))
    low, high = np.percentile(differences, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.low, low, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.high, high, rtol=0, atol=1e-4)


def test_alike_images_of_a_case_widen_the_interval():
    # 20 images, found or missed: image by image at random, or five of a case all alike.
    box = ([[0, 0, 10, 10]], [0.9], [4])
    annotations = [
        {"id": i, "image_id": i, "category_id": 5, "bbox": [0, 0, 10, 10], "area": 100}
        for i in range(1, 21)
    ]
    found = [ImagePrediction(i, *box, *box) for i in range(1, 21) if (i - 1) // 5 % 2]
    width = {}
    for kind in ("case", "image"):
        images = [{"id": i, "case_id": str((i - 1) // 5)} for i in range(1, 21)]
        if kind == "image":
            images = [{"id": image["id"]} for image in images]
        coco = {"images": images, "annotations": annotations}
        runs = {"sep": [tally_run(coco, [])], "aam": [tally_run(coco, found)]}
        aam = compare_presets(runs, resamples=2000)["aam"].metrics
        width[kind] = float(aam.high[2] - aam.low[2])
    # Of n independent units of share 1/2 the standard deviation is 0.5 / sqrt(n): 4 against 20.
    assert width["case"] / width["image"] == pytest.approx(np.sqrt(5), rel=0.2)
