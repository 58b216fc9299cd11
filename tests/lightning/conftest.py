"""A tiny data set and the overrides that make a training on it take seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset
from deepacc_lightning.wandb.offline import OfflineRun, find_runs, read_run

TINY = (
    "scale.image_size=96",
    "scale.backbone.stem_channels=8",
    "scale.backbone.res2_channels=8",
    "scale.fpn.out_channels=32",
    "scale.roi.fc_dims=[16,16]",
    "scale.roi.batch_size_per_image=32",
    "scale.rpn.pre_nms_topk=[100,100]",
    "scale.rpn.post_nms_topk=[40,40]",
    "scale.batch_size=2",
    "scale.num_workers=0",
    "scale.max_epochs=1",
    "scale.check_val_every_n_epoch=1",
    "scale.precision=32-true",
    "logger=csv",
    "callbacks.progress=null",
    "+trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tiny"
    config = SyntheticConfig(size=(224, 208), cells_per_case=1, num_batches=2, seed=3)
    ensure_dataset(root, config, {"train": 6, "val": 3, "test": 3}, num_workers=1, progress=False)
    return root


@pytest.fixture(scope="session")
def shared_overrides(tiny_data: Path) -> list[str]:
    return [*TINY, "data=coco", f"data.root={tiny_data}"]


@pytest.fixture
def overrides(shared_overrides: list[str], tmp_path: Path) -> list[str]:
    return [*shared_overrides, f"out={tmp_path / 'run'}"]


@pytest.fixture(scope="session")
def finished_run() -> Callable[[Path], OfflineRun]:
    """Reads the only offline W&B run below a directory, whose end may need a moment."""

    def read(out: Path) -> OfflineRun:
        (path,) = find_runs(out)
        deadline = time.monotonic() + 20
        while (run := read_run(path)).exit_code is None:
            assert time.monotonic() < deadline, "the run has no end"
            time.sleep(0.1)
        return run

    return read
