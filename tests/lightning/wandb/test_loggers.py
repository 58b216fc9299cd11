"""What a real training leaves in its offline W&B run, read back from the file."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.errors import UserError
from deepacc_d2.evaluation.types import SUMMARY_KEYS
from deepacc_lightning import evaluate, train
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.wandb.loggers import STEP, WandbLogger, run_columns, wandb_run_id

FinishedRun = Callable[[Path], SimpleNamespace]

METHOD = {"alpha": 0.2, "beta": 1.0, "gamma": 0.1, "m": 0.25, "s": 64.0, "delta": 0.5}
METHOD |= {"center": "single", "center_share": 1.0}


@pytest.fixture(scope="module")
def out(shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("logged") / "run"
    overrides = [o for o in shared_overrides if o != "logger=csv"]
    # A threshold of zero: a model of two epochs is sure of nothing.
    overrides += [f"out={out}", "scale.max_epochs=2", "group=a-sweep", "alpha=0.2", "seed=3"]
    overrides += ["model.roi_heads.box_predictor.test_score_thresh=0.0"]
    train.run(compose_config("train", overrides))
    return out


@pytest.fixture(scope="module")
def run(out: Path, finished_run: FinishedRun) -> SimpleNamespace:
    return finished_run(out)


def test_it_is_grouped_tagged_and_finished(run: SimpleNamespace, out: Path) -> None:
    told = run.run
    assert told["project"] == "deepacc-d2"
    assert (told["run_group"], told["job_type"]) == ("a-sweep", "baseline")
    assert told["tags"] == ["baseline", "quick", "tiny"]
    assert run.exit_code == 0
    facts = json.loads((out / "run.json").read_text())
    assert told["run_id"] == facts["wandb_id"]
    assert run.path.parent.name.endswith(f"-{facts['wandb_id']}")


def test_columns_are_flat_beside_the_whole_config(run: SimpleNamespace, out: Path) -> None:
    facts = json.loads((out / "run.json").read_text())
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert {name: run.config[name] for name in METHOD} == METHOD
    assert run.config["preset"] == "baseline"
    assert run.config["seed"] == 3
    assert run.config["scale_name"] == "quick"
    assert run.config["data_name"] == facts["data"]["name"]
    assert run.config["data_fingerprint"] == facts["data"]["fingerprint"]
    assert run.config["git_revision"] == facts["git"]["revision"]
    assert run.config["git_dirty"] == facts["git"]["dirty"]
    assert run.config["parameters"] == facts["parameters"]
    assert run.config["device"] == facts["device"]
    assert run.config["model"] == config["model"]
    assert run.config["scale"]["batch_size"] == 2


def test_curves_are_those_of_the_csv_file(run: SimpleNamespace, out: Path) -> None:
    with (out / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("step", "epoch")]
    assert {"train/lr", "train/grad_norm", "train/loss_cls", "val/map50", "test/aer"} <= set(names)
    assert {f"time/{n}" for n in ("step_seconds", "images_per_second", "data_wait_fraction")} <= {
        *names
    }
    for name in names:
        expected = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        found = [(row[STEP], float(row[name])) for row in run.history if name in row]
        assert len(found) == len(expected) > 0, name
        assert np.allclose(found, expected, rtol=1e-6, atol=0, equal_nan=True), name


def test_every_loss_has_a_curve_of_every_step(run: SimpleNamespace) -> None:
    for name in ("loss", "loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"):
        rows = [row for row in run.history if f"train/{name}" in row]
        assert [row[STEP] for row in rows] == list(range(6)), name
    total = [row["train/loss"] for row in run.history if "train/loss" in row]
    parts = [
        sum(value for key, value in row.items() if key.startswith("train/loss_"))
        for row in run.history
        if "train/loss" in row
    ]
    assert total == pytest.approx(parts, rel=1e-5)


def test_speed_is_plausible(run: SimpleNamespace) -> None:
    for row in run.history:
        if "time/step_seconds" in row:
            product = row["time/images_per_second"] * row["time/step_seconds"]
            assert product == pytest.approx(2.0), "a batch has two images"
            assert 0 <= row["time/data_wait_fraction"] < 1


def test_validation_goes_with_epoch_and_step_and_its_best_is_kept(run: SimpleNamespace) -> None:
    rows = [row for row in run.history if "val/map50" in row]
    assert [(row["epoch"], row[STEP]) for row in rows] == [(0, 2), (1, 5)]
    for name in SUMMARY_KEYS:
        best = "min" if name == "aer" else "max"
        defined = run.metrics[f"val/{name}"]
        assert defined["step_metric"] == STEP
        assert defined["summary"] == {best: True, "last": True}
        values = [row[f"val/{name}"] for row in rows if np.isfinite(float(row[f"val/{name}"]))]
        kept = run.summary[f"val/{name}"]
        if values:
            assert kept[best] == pytest.approx({"min": min, "max": max}[best](values)), name
            assert kept["last"] == pytest.approx(values[-1]), name


def test_summary_has_the_score_of_the_best_checkpoint(run: SimpleNamespace, out: Path) -> None:
    best = json.loads((out / "run.json").read_text())["best"]
    assert best["monitor"] == "val/map50"
    assert run.summary["best/val_map50"] == pytest.approx(best["score"])
    logged = [row["val/map50"] for row in run.history if "val/map50" in row]
    assert run.summary["best/val_map50"] == pytest.approx(max(logged))


def test_summary_has_the_metrics_of_the_test(run: SimpleNamespace, out: Path) -> None:
    written = json.loads((out / "test" / "metrics.json").read_text())
    for name in SUMMARY_KEYS:
        if written[name] is not None:
            assert run.summary[f"test/{name}"] == pytest.approx(written[name], abs=1e-4), name
    for group, row in written["per_group"].items():
        assert run.summary[f"test/group/{group}/aer"] == pytest.approx(row["aer"]), group


def table(run: SimpleNamespace, key: str) -> dict:
    return json.loads((run.files / run.summary[key]["path"]).read_text())


def test_tables_are_those_of_the_report(run: SimpleNamespace, out: Path) -> None:
    written = json.loads((out / "test" / "metrics.json").read_text())
    for key, part in (("per_class", "per_class"), ("per_group", "per_group")):
        content = table(run, f"test/{key}")
        assert len(content["data"]) == len(written[part])
        for row in content["data"]:
            cells = dict(zip(content["columns"], row, strict=True))
            expected = written[part][cells.get("class") or cells["group"]]
            for name, value in expected.items():
                assert cells[name] == pytest.approx(value), (cells, name)


def test_confusion_matrix_has_every_pair_of_classes(run: SimpleNamespace, out: Path) -> None:
    content = table(run, "Custom Chart Tables/test/confusion_matrix_table")
    assert content["columns"] == ["Actual", "Predicted", "nPredictions"]
    counts = {(true, found): n for true, found, n in content["data"]}
    assert len(counts) == 25 * 25
    written = json.loads((out / "test" / "metrics.json").read_text())
    for name in CLASSES:
        of_class = sum(n for (true, _), n in counts.items() if true == name)
        assert of_class == written["per_class"][name]["gt"], name


def test_images_have_boxes_of_both_kinds(run: SimpleNamespace, tiny_data: Path) -> None:
    truth = json.loads((tiny_data / "annotations" / "test.json").read_text())
    records = {image["file_name"]: image for image in truth["images"]}
    (files,) = [files for files in run.artifacts.values() if "test/images.table.json" in files]
    for path in files.values():
        assert path.is_relative_to(run.path.parents[1]), "all that is uploaded is with the run"
    content = json.loads(files["test/images.table.json"].read_text())
    assert [row[0] for row in content["data"]] == ["best_1", "between_1", "worst_1"]
    for choice, name, image, *_ in content["data"]:
        shown = run.summary[f"test/examples/{choice}"]
        assert shown["path"].endswith(".jpg")
        with Image.open(run.files / shown["path"]) as pixels:
            assert pixels.mode == "L"
            assert pixels.size == (records[name]["width"], records[name]["height"])
        assert set(image["boxes"]) == {"ground_truth", "predictions"}
        boxes = json.loads((run.files / shown["boxes"]["ground_truth"]["path"]).read_text())
        assert boxes["class_labels"] == {str(k): label for k, label in enumerate(CLASSES)}
        expected = sorted(
            (a["category_id"] - 1, *a["bbox"])
            for a in truth["annotations"]
            if a["image_id"] == records[name]["id"]
        )
        found = sorted(in_pixels(box, records[name]) for box in boxes["box_data"])
        assert np.allclose(found, expected, atol=1e-3), name


def in_pixels(box: dict, record: dict) -> tuple[float, ...]:
    """Returns a box of W&B as class index and COCO's XYWH."""
    place = box["position"]
    width, height = record["width"], record["height"]
    return (
        box["class_id"],
        place["minX"] * width,
        place["minY"] * height,
        (place["maxX"] - place["minX"]) * width,
        (place["maxY"] - place["minY"]) * height,
    )


def test_an_evaluation_is_a_run_of_its_own(
    out: Path, tiny_data: Path, tmp_path: Path, finished_run: FinishedRun
) -> None:
    overrides = [f"ckpt={out / 'checkpoints' / 'best.ckpt'}", "data=coco", "num_workers=0"]
    overrides += [f"data.root={tiny_data}", f"out={tmp_path / 'evaluation'}", "logger=evaluation"]
    summary = evaluate.run(compose_config("evaluate", overrides))
    run = finished_run(tmp_path / "evaluation")
    assert run.run["job_type"] == "evaluate"
    assert run.config["alpha"] == METHOD["alpha"], "the columns are those of the training"
    assert run.config["split"] == "test"
    for name, value in summary.items():
        assert float(run.summary[f"evaluate/{name}"]) == pytest.approx(value, nan_ok=True), name
    assert not any(key.startswith("test/") for key in run.keys), "trainings' tests stay apart"
    assert run.summary["evaluate/images"]["nrows"] == 3


def test_a_failed_training_ends_its_run_as_failed(
    shared_overrides: list[str], tmp_path: Path, finished_run: FinishedRun
) -> None:
    overrides = [o for o in shared_overrides if o != "logger=csv"]
    overrides += [f"out={tmp_path / 'run'}", "optim=sgd", "optim.optimizer.lr=1e30"]
    overrides += ["optim.warmup_steps=0", "trainer.gradient_clip_val=null", "scale.max_epochs=8"]
    with pytest.raises(UserError, match="diverged"):
        train.run(compose_config("train", overrides))
    assert finished_run(tmp_path / "run").exit_code == 1


def test_a_run_goes_on_under_its_id_in_its_own_directory_only(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text('{"wandb_id": "abcd1234"}')
    checkpoint = out / "checkpoints" / "last.ckpt"
    assert wandb_run_id(out, str(checkpoint)) == "abcd1234"
    new = {wandb_run_id(out), wandb_run_id(tmp_path / "other", str(checkpoint)), wandb_run_id(out)}
    assert len(new) == 3, "each another one"
    assert "abcd1234" not in new
    assert all(len(name) == 8 and name.isalnum() and name.islower() for name in new)
    (out / "run.json").write_text("damaged")
    assert wandb_run_id(out, str(checkpoint)) != "abcd1234"


def test_columns_without_a_config_or_device() -> None:
    facts = {
        **{"scale": "quick", "preset": "sep", "seed": 1},
        "data": {"name": "mine", "root": "/data", "fingerprint": "f"},
        "git": {"revision": None, "dirty": None},
    }
    columns = run_columns(None, facts)
    assert columns["preset"] == "sep"
    assert columns["git_revision"] is None
    assert "device" not in columns


def test_ending_a_run_never_fails_a_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(exit_code: int) -> None:
        raise ConnectionResetError

    logger = WandbLogger(offline=True, save_dir=str(tmp_path))
    logger._experiment = SimpleNamespace(dir=str(tmp_path / "run-1" / "files"), finish=fails)
    logger.finish()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"wandb sync {tmp_path / 'run-1'}" in error
    logger.finish()
    assert capsys.readouterr().err == ""


def test_a_finished_run_is_on_disk_when_finish_returns(tmp_path: Path) -> None:
    """W&B's own finish returns before: four times of five, 7 bytes were there."""
    for number in range(5):
        logger = WandbLogger(offline=True, project="p", save_dir=str(tmp_path), id=f"run{number}")
        logger.log_metrics({"train/loss": 1.0}, step=0)
        logger.finish()
        (path,) = tmp_path.glob(f"wandb/offline-run-*-run{number}/run-*.wandb")
        size = path.stat().st_size
        time.sleep(0.2)
        assert path.stat().st_size == size > 1000, wandb.run


def test_a_run_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", "+logger.wandb.api_key=geheim-1", "seed=3"])
    monkeypatch.setenv("SOME_TOKEN", "geheim-2")
    logger = WandbLogger(offline=True, save_dir=str(tmp_path), project="p")
    facts = {"scale": "quick", "data": {"name": "d", "fingerprint": "f"}, "git": {}}
    facts["git"] = {"revision": None, "dirty": None}
    config = {"init_weights": "https://me:geheim-3@host/w", "note": "geheim-2", "seed": 3}
    logger.log_hyperparams(run_columns(config, facts))
    logger.finish()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"seed=3" in kept
    assert b"geheim" not in kept
