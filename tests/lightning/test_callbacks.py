from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from deepacc_lightning import callbacks
from deepacc_lightning.callbacks import SaveOnInterrupt, Throughput, format_duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_throughput_counts_images_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    logged: dict[str, float] = {}
    module = SimpleNamespace(log=lambda name, value, **_: logged.update({name: value}))
    meter = Throughput()
    meter.on_train_epoch_start(None, module)
    meter.on_train_batch_end(None, module, None, [0] * 4, 0)
    assert logged == {"time/step_seconds": 2.0, "time/images_per_second": 2.0}
    meter.on_train_batch_end(None, module, None, [0] * 3, 1)
    assert logged["time/images_per_second"] == 3.0
    assert (meter.seconds, meter.images) == (3.0, 7)


def test_only_an_interrupt_is_saved(tmp_path: Path) -> None:
    saved: list[Path] = []
    trainer = SimpleNamespace(global_step=5, save_checkpoint=saved.append)
    callback = SaveOnInterrupt(tmp_path / "last.ckpt")
    callback.on_exception(trainer, None, ValueError("diverged"))
    assert saved == []
    callback.on_exception(trainer, None, KeyboardInterrupt())
    assert saved == [tmp_path / "last.ckpt"]
    trainer.global_step = 0
    callback.on_exception(trainer, None, KeyboardInterrupt())
    assert len(saved) == 1
