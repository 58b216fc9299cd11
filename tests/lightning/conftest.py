"""A tiny data set and the overrides that make a training on it take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset
from tests.lightning.programs import Programs

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
    "scale.test_batch_size=1",  # as make evaluate looks at images: none is padded to another's size
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


@pytest.fixture
def prompt_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers have a low priority otherwise, and wait for the tests next to them."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Starts programs as processes without the seconds that their imports take."""
    server = Programs(tmp_path_factory.mktemp("programs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def finished_run() -> Callable[[Path], SimpleNamespace]:
    """Reads the only offline W&B run below a directory, which must have its end.

    The result has ``path``, ``files`` (the folder of media), ``run`` (project, group, tags, ...),
    ``config``, ``history`` (a dict a step), ``summary`` (nested: ``val/map50`` -> ``max``),
    ``metrics`` (as defined), ``artifacts`` (by name, local path by name), ``exit_code`` and
    ``keys`` (what was logged, without W&B's own).
    """
    return read_offline_run


def read_offline_run(folder: Path) -> SimpleNamespace:
    """Reads a run by W&B's own reader, which wants no login and sends nothing."""
    (path,) = (p for p in folder.rglob("run-*.wandb") if p.parent.name != "latest-run")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    lines = subprocess.check_output(command, text=True, env=environment).splitlines()
    records = [(record["type"], record[record["type"]]) for record in map(json.loads, lines)]
    of_kind = {kind: [r for k, r in records if k == kind] for kind, _ in records}
    assert "exit" in of_kind, f"{path} has no end: {path.stat().st_size} bytes"
    (run,) = of_kind["run"]
    updates = [run["config"]["update"], *(r["update"] for r in of_kind.get("config", []))]
    history = [nested(r["item"]) for r in of_kind.get("history", [])]
    summary = [r["update"] for r in of_kind.get("summary", [])]
    return SimpleNamespace(
        path=path,
        files=path.parent / "files",
        run=run,
        config={key: value for update in updates for key, value in update.items()},
        history=history,
        summary=nested({key: value for update in summary for key, value in update.items()}),
        metrics={r.get("name") or r["glob_name"]: r for r in of_kind.get("metric", [])},
        artifacts={
            r["name"]: {c["path"]: Path(c["local_path"]) for c in r["manifest"]["contents"]}
            for r in of_kind.get("artifact", [])
        },
        exit_code=of_kind["exit"][-1]["exit_code"],
        keys=sorted({key for row in history for key in row if not key.startswith("_")}),
    )


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Puts ``a.b`` into ``a``."""
    found: dict[str, Any] = {}
    for dotted, value in flat.items():
        *nodes, last = dotted.split(".")
        node = found
        for name in nodes:
            node = node.setdefault(name, {})
        node[last] = value
    return found
