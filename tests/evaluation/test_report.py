from __future__ import annotations

import contextlib
import csv
import io
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepacc_d2.chromosomes import CLASSES, denver_order
from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation import report
from deepacc_d2.evaluation.gallery import plot_best_worst
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.plots import plot_confusion, plot_precision_recall
from deepacc_d2.evaluation.report import format_table, write_report

FILES = [
    *("metrics.json", "predictions.json", "predictions_top1.json", "per_class.csv"),
    *("confusion_matrix.png", "precision_recall.png", "best_worst.png"),
]


@pytest.fixture(scope="module")
def written(make_case, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    coco, predictions = make_case(0)
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (160, 200), dtype=np.uint8)
    for image in coco["images"][1:]:  # the first one is missing, which is survived
        cv2.imwrite(str(images / image["file_name"]), pixels)
    metrics = compute_metrics(coco, predictions)
    out = tmp_path / "new" / "out"
    return coco, predictions, metrics, out, write_report(out, coco, predictions, metrics, images)


def test_files(written):
    _, predictions, metrics, out, paths = written
    assert [p.name for p in paths] == FILES
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    for path in paths[-3:]:
        picture = cv2.imread(str(path))
        assert min(picture.shape[:2]) > 500
        assert picture.std() > 10
    assert json.loads((out / "metrics.json").read_text()) == metrics.to_dict()
    with (out / "per_class.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == [CLASSES[k] for k in denver_order()]
    assert float(rows[0]["ap50"]) == metrics.per_class["1"]["ap50"]
    assert next(row for row in rows if row["class"] == "X")["ap50"] == ""
    top1 = json.loads((out / "predictions_top1.json").read_text())
    assert len(top1) == sum(len(p.top1_scores) for p in predictions)


def test_predictions_are_coco_results(written):
    coco, _, metrics, out, _ = written
    truth = COCO()
    truth.dataset = {
        **coco,
        "annotations": [{**a, "id": i + 1} for i, a in enumerate(coco["annotations"])],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(str(out / "predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 100 * evaluation.stats[0] == pytest.approx(metrics.coco_ap, abs=0.01)


def test_table(written):
    metrics = written[2]
    text = format_table(metrics)
    lines = text.splitlines()
    assert lines[0].startswith(f"{metrics.num_images} images, {metrics.num_gt} chromosomes")
    for key, value in metrics.summary().items():
        assert key in text
        assert f"{value:.1f}" in text
    y = next(line.split() for line in lines if line.split()[:2] == ["G", "Y"])
    assert y[2] == "-"
    assert "nan" not in text


def test_nothing_half_written(written, monkeypatch):
    coco, predictions, metrics, out, _ = written
    before = (out / "precision_recall.png").read_bytes()

    def fails(*_):
        raise RuntimeError("drawing failed")

    monkeypatch.setattr(report, "plot_precision_recall", fails)
    with pytest.raises(RuntimeError, match="drawing failed"):
        write_report(out, coco, predictions, metrics, out)
    assert (out / "precision_recall.png").read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)


def test_folder_that_cannot_be_made(written, tmp_path):
    coco, predictions, metrics, _, _ = written
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write the report to .*file/out"):
        write_report(tmp_path / "file" / "out", coco, predictions, metrics, tmp_path)


@pytest.mark.parametrize("images", [[], [{"id": 1, "width": 50, "height": 40}]])
def test_figures_of_an_empty_data_set(images, tmp_path):
    coco = {"images": images, "annotations": []}
    metrics = compute_metrics(coco, [])
    for figure in (
        plot_confusion(metrics),
        plot_precision_recall(metrics),
        plot_best_worst(coco, [], metrics, tmp_path),
    ):
        figure.savefig(tmp_path / "figure.png", dpi=30)
    assert "0 chromosomes" in format_table(metrics)
