"""Every flag of Lightning's Trainer can be set without a ``+``, and works or says no."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from torch import distributed

from deepacc_d2.errors import ConfigError
from deepacc_lightning import train
from deepacc_lightning.core.config import compose_config, normalized, to_plain
from deepacc_lightning.training.run_settings import first_difference, settings_of
from deepacc_lightning.training.trainer import build_trainer

PROGRAMS = {"logger", "callbacks", "plugins"}


def test_config_has_every_flag_of_this_lightning() -> None:
    flags = set(inspect.signature(pl.Trainer).parameters) - PROGRAMS
    for trainer in ("default", "ddp", "ddp_sim"):
        node = compose_config("train", [f"trainer={trainer}"]).trainer
        assert set(node) - {"_target_"} == flags, trainer


def test_flags_work_with_and_without_a_plus() -> None:
    assert normalized(["+trainer.min_steps=3"]) == ["trainer.min_steps=3"]
    assert normalized(["+model.x=1", "+trainer.new.x=2"]) == [
        "+model.x=1",
        "+trainer.new.x=2",
    ]
    for plus in ("", "+"):
        cfg = compose_config("train", [f"{plus}trainer.limit_train_batches=2", "logger=csv"])
        assert build_trainer(cfg, []).limit_train_batches == 2


def test_a_run_from_before_the_config_had_them_is_of_the_same_settings() -> None:
    now = to_plain(compose_config("train", ["data=coco", "data.root=/d"]))
    kept = ("precision", "max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val")
    kept += ("check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps")
    kept += ("use_distributed_sampler", "enable_model_summary")
    before = {**now, "trainer": {k: v for k, v in now["trainer"].items() if k in kept}}
    assert first_difference(settings_of(before), settings_of(now), "") == ""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("limit_train_batches=0", "trains nothing: give at least 1"),
        ("limit_train_batches=x", "limit_train_batches=x: give a number of batches such as 2"),
        ("limit_val_batches=1.5", "limit_val_batches=1.5: give a number"),
        ("overfit_batches=-1", "overfit_batches=-1: give a number"),
        ("accumulate_grad_batches=0", "accumulate_grad_batches=0: give a whole number of at least"),
        ("log_every_n_steps=0", "log_every_n_steps=0: give a whole number of at least 1"),
        ("limit_test_batches=0", "tests nothing: use test=false"),
        ("barebones=true", "needs its checkpoints and logs; use trainer.fast_dev_run"),
        ("use_distributed_sampler=true", "share images out over the processes already"),
        ("enable_checkpointing=false", "enable_checkpointing=False"),
    ],
)
def test_flags_that_cannot_be_had_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_trainer(compose_config("train", [f"trainer.{override}", "logger=csv"]), [])
    assert "\n" not in str(caught.value)


def test_limits_measure_what_was_looked_at_alone(
    overrides: list[str], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
    more = ["trainer.limit_test_batches=1", "scale.test_batch_size=1"]
    train.run(compose_config("train", [*overrides, *limits, *more]))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 1
    assert "note: tested on 1 of 3 images" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    coco = json.loads((tiny_data / "annotations" / "test.json").read_text())
    boxes = [a for a in coco["annotations"] if a["image_id"] == coco["images"][0]["id"]]
    assert (metrics["num_images"], metrics["num_gt"]) == (1, len(boxes))


def test_a_share_of_too_few_batches_is_one_line(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"refuses the trainer's flags: .*limit_val_batches") as e:
        train.run(compose_config("train", [*overrides, "trainer.limit_val_batches=0.01"]))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["val_check_interval=100"],
            r"refuses the trainer's flags: .*val_check_interval.* \(100\)",
        ),
        (["max_epochs=-1", "max_steps=-1"], r"without an end has no schedule: give trainer\.max_"),
        (["max_epochs=-1", "max_time=00:00:01:00"], r"without an end has no schedule"),
    ],
)
def test_a_training_that_cannot_be_planned_is_one_line(
    overrides: list[str], flags: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        train.run(compose_config("train", [*overrides, *(f"trainer.{flag}" for flag in flags)]))
    assert "\n" not in str(caught.value)


def test_other_nodes_that_do_not_come_are_one_line() -> None:
    def wait(*_: object, **__: object) -> None:
        raise distributed.DistStoreError("Timed out after 1801 seconds. 1/2 clients joined.")

    trainer = SimpleNamespace(fit=wait, interrupted=False)
    with pytest.raises(ConfigError, match=r"other nodes did not come .*1/2 clients.*num_nodes"):
        train.fit(trainer, None, None, None)


def test_overfitting_repeats_the_same_batches(overrides: list[str]) -> None:
    cfg = compose_config("train", [*overrides, "trainer.overfit_batches=1"])
    loader = train.build_datamodule(cfg).train_dataloader()
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        batch = next(iter(loader))
        epochs.append([(item["image_id"], item["image"].tolist()) for item in batch])
    assert epochs[0] == epochs[1]
    plain = train.build_datamodule(compose_config("train", overrides)).train_dataloader()
    plain.sampler.set_epoch(1)
    assert [item["image_id"] for item in next(iter(plain))] != [i for i, _ in epochs[0]]


def test_overfitting_trains_so_many_batches(overrides: list[str], tmp_path: Path) -> None:
    more = ["trainer.overfit_batches=1", "scale.max_epochs=2", "test=false"]
    train.run(compose_config("train", [*overrides, *more]))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 2


def test_a_fast_dev_run_touches_everything_once(overrides: list[str], tmp_path: Path) -> None:
    train.run(compose_config("train", [*overrides, "trainer.fast_dev_run=true", "test=false"]))
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (facts["steps"], facts["status"]) == (1, "finished")
    assert not list((tmp_path / "run").rglob("*.ckpt"))
