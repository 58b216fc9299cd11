"""Training end to end at tiny size: what it leaves on disk, resuming, Ctrl-C, divergence."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb
from detectron2.checkpoint import DetectionCheckpointer
from hydra.utils import instantiate

from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning import evaluate, train
from deepacc_lightning.core.cli import message
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.training.module import DetectionModule, NonFiniteLossError
from deepacc_lightning.training.resume import continued
from tests.lightning.programs import Programs

SUMMARY = {"map50", "map50_max", "coco_ap", "acc", "aer", "precision", "recall", "f1", "wcr"}


def start(overrides: list[str], *more: str) -> dict[str, float]:
    return train.run(compose_config("train", [*overrides, *more]))


@pytest.fixture(scope="module")
def trained(
    shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("trained") / "run"
    overrides = [*shared_overrides, f"out={out}"]
    # A threshold of zero: a model of one epoch is sure of nothing, and nothing tests nothing.
    more = ["model.roi_heads.box_predictor.test_score_thresh=0.0", "scale.max_epochs=2"]
    return out, start(overrides, *more)


def test_run_directory_has_all_it_should(trained: tuple[Path, dict]) -> None:
    out, _ = trained
    for name in ("config.yaml", "run.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (out / name).is_file(), name
    for name in ("metrics.json", "predictions.json", "confusion_matrix.png", "best_worst.png"):
        assert (out / "test" / name).stat().st_size > 0, name
    facts = json.loads((out / "run.json").read_text())
    assert facts["preset"] == "baseline"
    assert facts["steps"] == 6
    assert facts["train_images"] == 12
    assert facts["seed"] == 0
    assert set(facts["git"]) == {"revision", "dirty"}
    assert len(facts["data"]["fingerprint"]) == 64


def test_curves_of_every_loss_are_logged(trained: tuple[Path, dict]) -> None:
    out, _ = trained
    with (out / "csv" / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    for name in ("loss", "loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"):
        assert f"train/{name}" in columns
    assert {f"val/{name}" for name in SUMMARY} <= set(columns)


def test_evaluate_repeats_the_test_of_training(
    trained: tuple[Path, dict], tiny_data: Path, tmp_path: Path
) -> None:
    out, summary = trained
    overrides = [f"ckpt={out / 'checkpoints' / 'best.ckpt'}", "data=coco", "num_workers=0"]
    overrides += [f"data.root={tiny_data}", f"out={tmp_path / 'evaluation'}", "view=test"]
    again = evaluate.run(compose_config("evaluate", overrides))
    assert set(again) == SUMMARY
    for name in SUMMARY:
        assert again[name] == pytest.approx(summary[f"test/{name}"], nan_ok=True), name
    written = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert written["map50"] == pytest.approx(again["map50"])


def test_detectron2_loads_the_checkpoint(trained: tuple[Path, dict]) -> None:
    out, _ = trained
    path = out / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    model = instantiate(content["deepacc_config"]["model"])
    DetectionCheckpointer(model).load(str(path))
    for name, value in model.state_dict().items():
        assert torch.equal(value, content["state_dict"][f"model.{name}"]), name


def test_checkpoint_of_another_preset_or_scale_is_refused(
    trained: tuple[Path, dict], tiny_data: Path, overrides: list[str]
) -> None:
    path = trained[0] / "checkpoints" / "last.ckpt"
    with pytest.raises(DataError, match=r"is of baseline/quick, this run of sep/quick"):
        start(overrides, "experiment=sep", f"ckpt_path={path}")
    common = [f"ckpt={path}", "data=coco", f"data.root={tiny_data}"]
    with pytest.raises(ConfigError, match=r"is of preset 'baseline', not 'sep'"):
        evaluate.run(compose_config("evaluate", [*common, "preset=sep"]))
    with pytest.raises(ConfigError, match=r"is of scale 'quick', not 'paper'"):
        evaluate.run(compose_config("evaluate", [*common, "scale_name=paper"]))


def test_resume_goes_on_where_it_stopped(
    trained: tuple[Path, dict], overrides: list[str], tmp_path: Path
) -> None:
    path = trained[0] / "checkpoints" / "last.ckpt"
    start(overrides, f"ckpt_path={path}", "scale.max_epochs=3", "test=false")
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 9
    assert content["epoch"] == 2


def test_a_run_killed_after_its_test_logs_that_once(
    trained: tuple[Path, dict], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    curves, record = run / "csv" / "metrics.csv", run / "run.json"
    before = curves.read_text()
    facts = json.loads(record.read_text())
    record.write_text(json.dumps({**facts, "status": "running"}))
    train.run(continued(run, []))
    assert curves.read_text() == before
    assert json.loads(record.read_text())["status"] == "finished"


def test_training_is_deterministic_by_seed(overrides: list[str], tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        start(overrides, f"out={tmp_path / name}", f"seed={seed}", "test=false")
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        return torch.load(last, weights_only=True)["model"]

    first, second, other = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("experiment", ["sep", "retinanet"])
def test_other_presets_train_and_test(experiment: str, overrides: list[str]) -> None:
    summary = start(overrides, f"experiment={experiment}")
    assert {f"test/{name}" for name in SUMMARY} == set(summary)


def test_divergence_stops_training_and_keeps_the_last_good_checkpoint(
    overrides: list[str], tmp_path: Path
) -> None:
    # The first epoch, a warm-up from a rate of zero, is harmless; what follows is not.
    bad = ["scale.max_epochs=8", "optim=sgd", "optim.optimizer.lr=1e30", "optim.warmup_start=0"]
    more = ["optim.warmup_steps=4", "trainer.gradient_clip_val=null"]
    with pytest.raises(
        NonFiniteLossError, match=r"diverged at step \d+: .*not finite.*lower optim"
    ):
        start(overrides, *bad, *more)
    for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
        kept = torch.load(path, weights_only=True)["model"]
        assert all(torch.isfinite(v).all() for v in kept.values()), path


def test_divergence_names_the_step_and_the_losses() -> None:
    class Diverging(torch.nn.Module):
        def forward(self, batch: list) -> dict[str, torch.Tensor]:
            nan, one = torch.tensor(float("nan")), torch.tensor(1.0)
            return {"loss_cls": nan, "loss_box_reg": one, "loss_rpn_cls": nan / 0}

    module = DetectionModule(Diverging())
    with pytest.raises(NonFiniteLossError) as caught:
        module.training_step([{}], 0)
    assert "step 0: {'loss_cls': nan, 'loss_rpn_cls': nan}" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(
    workers: int, tiny_data: Path, overrides: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(tiny_data, root)
    names = json.loads((root / "annotations" / "train.json").read_text())["images"]
    for image in names:
        (root / "images" / image["file_name"]).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        start(overrides, f"data.root={root}", f"scale.num_workers={workers}")
    line = message(caught.value)
    assert "\n" not in line
    assert line.startswith(f"image {root / 'images'}")
    assert "is empty (0 bytes): copy it again from its source; `make data-check` lists" in line


def test_wandb_logs_offline_without_a_login(
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished_run: Callable[[Path], SimpleNamespace],
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    start([o for o in overrides if o != "logger=csv"], "test=false")
    run = finished_run(tmp_path / "run")
    assert run.path.parent.name.startswith("offline-run-")
    assert run.exit_code == 0
    assert {"train/loss", "val/map50"} <= set(run.keys)
    assert wandb.run is None, "a Hydra multirun would log its next job into this run"


def test_bad_environments(overrides: list[str], tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu asks for a GPU"):
            start(overrides, "trainer.accelerator=gpu")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output .*file/run cannot be written"):
        start(overrides, f"out={tmp_path / 'file' / 'run'}")
    with pytest.raises(DataError, match=r"does not exist: make one with `make data"):
        start(overrides, f"data.root={tmp_path / 'nothing'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty is empty: make one with `make data"):
        start(overrides, f"data.root={tmp_path / 'empty'}")


def test_interrupt_keeps_a_checkpoint_and_exits_130(
    overrides: list[str], tmp_path: Path, programs: Programs
) -> None:
    arguments = [*overrides, "scale.max_epochs=10000", "test=false"]
    process = programs.start("deepacc_lightning.train", *arguments)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    try:
        deadline = time.monotonic() + 180
        while not last.is_file() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        assert last.is_file(), process.said()[1]
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert f"checkpoint kept in {last}" in error
    assert "Traceback" not in error
    assert torch.load(last, weights_only=True)["global_step"] > 0
