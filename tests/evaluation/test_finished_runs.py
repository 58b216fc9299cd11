from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.finished_runs import read_run
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.report import coco_results


@pytest.fixture
def run(make_case, tmp_path) -> tuple[dict, list, Path]:
    """A run's report, less its figures."""
    coco, predictions = make_case(0)
    folder = tmp_path / "run" / "test"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(
        json.dumps(compute_metrics(coco, predictions, agnostic_nms=0.6).to_dict())
    )
    for name, top1 in (("predictions", False), ("predictions_top1", True)):
        (folder / f"{name}.json").write_text(json.dumps(coco_results(predictions, top1=top1)))
    return coco, predictions, folder


def test_predictions_come_back(run):
    coco, predictions, folder = run
    # An image without any detection leaves no trace in the files and must still be there.
    silent = coco["images"][2]["id"]
    for name in ("predictions.json", "predictions_top1.json"):
        rows = json.loads((folder / name).read_text())
        kept = [row for row in rows if row["image_id"] != silent]
        (folder / name).write_text(json.dumps(kept[::-1]))
    found = read_run(folder.parent, coco)
    assert found.settings["agnostic_nms"] == 0.6
    assert [p.image_id for p in found.predictions] == [p.image_id for p in predictions]
    for got, given in zip(found.predictions, predictions, strict=True):
        if got.image_id == silent:
            assert len(got.boxes) == len(got.top1_boxes) == 0
            continue
        for prefix in ("", "top1_"):
            for name, tolerance in (("boxes", 2e-4), ("scores", 1e-7), ("classes", 0)):
                np.testing.assert_allclose(
                    getattr(got, prefix + name)[::-1],
                    getattr(given, prefix + name),
                    rtol=0,
                    atol=tolerance,
                )


def test_metrics_come_back(run):
    coco, _, folder = run
    found = read_run(folder.parent, coco)
    again = compute_metrics(coco, found.predictions, **found.settings)
    for key, value in again.summary().items():
        assert value == pytest.approx(found.metrics[key], abs=1e-2)


@pytest.mark.parametrize("name", ["metrics.json", "predictions.json", "predictions_top1.json"])
def test_missing_and_cut_short(run, name):
    coco, _, folder = run
    path = folder / name
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=rf"run/test/{name} is no complete JSON"):
        read_run(folder.parent, coco)
    path.unlink()
    with pytest.raises(DataError, match=rf"run/test/{name} is missing"):
        read_run(folder.parent, coco)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image_id": 4}, "detections on image 4, which is not in the ground truth"),
        ({"category_id": 25}, "category id outside 1..24"),
        ({"bbox": [1, 2, 3]}, "no list of COCO results"),
        ({"bbox": [1, 2, 3, float("nan")]}, "not finite"),
        ({"score": None}, "not finite|no list of COCO results"),
        ({"score": "high"}, "no list of COCO results"),
    ],
)
def test_broken_results(run, change, problem):
    coco, _, folder = run
    path = folder / "predictions.json"
    rows = json.loads(path.read_text())
    rows[7].update(change)
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=rf"run/test/predictions\.json .*({problem})"):
        read_run(folder.parent, coco)


@pytest.mark.parametrize("content", [{"a": 1}, 3, [1], [{}], [None]])
def test_results_of_another_kind(run, content):
    coco, _, folder = run
    (folder / "predictions.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"predictions\.json is no list of COCO results"):
        read_run(folder.parent, coco)


def test_other_ground_truth(run):
    coco, _, folder = run
    fewer = {**coco, "annotations": coco["annotations"][1:]}
    with pytest.raises(DataError, match=r"metrics\.json has num_gt \d+, but the ground truth \d+"):
        read_run(folder.parent, fewer)
    (folder / "metrics.json").write_text("[]")
    with pytest.raises(DataError, match=r"metrics\.json holds no metrics and settings"):
        read_run(folder.parent, coco)
