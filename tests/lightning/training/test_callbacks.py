from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from deepacc_lightning.training import callbacks
from deepacc_lightning.training.callbacks import StepStatistics, Throughput, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_throughput_counts_images_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Begin of the epoch, batch came, batch done, and the latter two again.
    clock = iter([10.0, 10.5, 12.0, 12.25, 13.0])
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    logged: dict[str, float] = {}
    module = SimpleNamespace(log_dict=lambda values, **_: logged.update(values))
    trainer = SimpleNamespace(global_step=1, log_every_n_steps=1, world_size=2)
    meter = Throughput()
    meter.on_train_epoch_start(trainer, module)
    meter.on_train_batch_start(trainer, module, [0] * 4, 0)
    meter.on_train_batch_end(trainer, module, None, [0] * 4, 0)
    assert logged == {
        "time/step_seconds": 2.0,
        "time/images_per_second": 4.0,  # two processes
        "time/data_wait_fraction": 0.25,
    }
    logged.clear()
    trainer.log_every_n_steps = 10
    meter.on_train_batch_start(trainer, module, [0] * 3, 1)
    meter.on_train_batch_end(trainer, module, None, [0] * 3, 1)
    assert logged == {}, "no logger writes this step"
    assert (meter.seconds, meter.images) == (3.0, 7), "it counts all the same"


def test_step_statistics_are_those_of_the_step() -> None:
    logged: dict[str, float] = {}
    module = torch.nn.Linear(2, 1)
    module.device = torch.device("cpu")
    module.log_dict = lambda values, **_: logged.update(values)
    module.weight.grad = torch.tensor([[3.0, 0.0]])
    module.bias.grad = torch.tensor([4.0])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.125)
    trainer = SimpleNamespace(global_step=8, log_every_n_steps=10)
    callback = StepStatistics()
    callback.on_before_optimizer_step(trainer, module, optimizer)
    assert logged == {}, "no logger writes step 9"
    trainer.global_step = 9
    callback.on_before_optimizer_step(trainer, module, optimizer)
    assert logged == {"train/lr": 0.125, "train/grad_norm": pytest.approx(5.0)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_step_statistics_tell_the_memory_of_a_gpu() -> None:
    logged: dict[str, float] = {}
    module = torch.nn.Linear(1024, 1024, device="cuda")
    module.device = torch.device("cuda", 0)
    module.log_dict = lambda values, **_: logged.update(values)
    module.weight.grad = torch.ones_like(module.weight)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.125)
    trainer = SimpleNamespace(global_step=0, log_every_n_steps=1)
    StepStatistics().on_before_optimizer_step(trainer, module, optimizer)
    least = 2 * module.weight.numel() * 4 / 2**30
    assert least <= logged["gpu/peak_allocated_gib"] <= logged["gpu/peak_reserved_gib"]
    assert logged["gpu/peak_allocated_gib"] * 2**30 == torch.cuda.max_memory_allocated()
