from __future__ import annotations

import pytest
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from deepacc_d2.distributed import GatheredBatchNorm2d
from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.training.checkpoint_io import SafeCheckpointIO
from deepacc_lightning.training.trainer import GatherBatchNorm, build_trainer, trainer_plugins


def _build(*overrides: str):
    return build_trainer(compose_config("train", ["logger=csv", *overrides]), [])


def test_every_training_writes_checkpoints_safely() -> None:
    trainer = _build()
    assert isinstance(trainer.strategy.checkpoint_io, SafeCheckpointIO)
    assert trainer.world_size == 1


def test_two_processes_on_the_cpu() -> None:
    trainer = _build("trainer=ddp_sim")
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.world_size == 2
    assert trainer.strategy.process_group_backend == "gloo"
    assert not trainer.strategy._ddp_kwargs.get("find_unused_parameters", False)
    assert isinstance(trainer.strategy._layer_sync, GatherBatchNorm)


def test_batch_norm_is_put_back() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2))
    plugin = GatherBatchNorm()
    assert isinstance(plugin.apply(model)[0], GatheredBatchNorm2d)
    assert type(plugin.revert(model)[0]) is nn.BatchNorm2d


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_precisions_of_a_cpu(precision: str) -> None:
    assert _build(f"trainer.precision={precision}").precision == precision


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devices=0", r"no such trainer here.*devices=0"),
        ("trainer.devices=[3]", r"no such trainer here.*should be an int > 0"),
        ("trainer.precision=fp17", r"no such trainer here.*'fp17' is invalid"),
        ("trainer.max_epochs=-3", r"no such trainer here.*max_epochs"),
    ],
)
def test_a_trainer_that_cannot_be_had_is_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        _build("trainer.accelerator=cpu", override)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_float16_is_not_quietly_another_precision() -> None:
    with pytest.raises(ConfigError, match=r"precision=16-mixed needs a GPU: use bf16-mixed"):
        _build("trainer.precision=16-mixed")


def test_slurm_does_not_requeue_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SLURM_NTASKS", "2"), ("SLURM_JOB_NAME", "train")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="Use `--ntasks-per-node=2` instead"):
        trainer_plugins(compose_config("train", ["trainer=ddp_sim"]).trainer)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    plugins = trainer_plugins(compose_config("train", ["trainer=ddp_sim"]).trainer)
    (environment,) = (p for p in plugins if isinstance(p, SLURMEnvironment))
    assert not environment.auto_requeue
