"""Processes of a run: each runs the command again under its rank, unless others started them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

from deepacc_lightning.training.children import (
    ProcessesOfCommand,
    children_end_too,
    process_plugins,
)

PROGRAM = """
import json, os, sys, time
from pathlib import Path
import pytorch_lightning as pl
from deepacc_lightning.training.children import children_end_too, process_plugins

trainer = pl.Trainer(
    accelerator="cpu", devices=3, strategy="ddp", plugins=process_plugins(), logger=False,
    enable_checkpointing=False, enable_progress_bar=False,
)
folder = Path(sys.argv[1])
names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "WORLD_SIZE")
with children_end_too(trainer):
    rank = os.environ.get("LOCAL_RANK", "main")
    said = {"arguments": sys.argv[1:], **{name: os.environ.get(name) for name in names}}
    (folder / f"{rank}.part").write_text(json.dumps(said))
    (folder / f"{rank}.part").rename(folder / f"{rank}.json")
    while len(list(folder.glob("*.json"))) < 3:
        time.sleep(0.05)
"""


def trainer(devices: int, strategy: str = "auto") -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        plugins=process_plugins(strategy),
        logger=False,
        enable_checkpointing=False,
    )


@pytest.mark.slow
def test_each_process_runs_the_command_again_under_its_rank(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    folder = tmp_path / "said"
    folder.mkdir()
    subprocess.run(
        [sys.executable, str(program), str(folder), "a key=two words"], check=True, timeout=120
    )
    said = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert set(said) == {"main", "1", "2"}
    assert {tuple(each["arguments"]) for each in said.values()} == {
        (str(folder), "a key=two words")
    }
    for rank in ("1", "2"):
        assert said[rank]["WORLD_SIZE"] == "3"
        assert said[rank]["NODE_RANK"] == "0"
        assert said[rank]["MASTER_ADDR"] == "127.0.0.1"
    assert said["1"]["MASTER_PORT"] == said["2"]["MASTER_PORT"]
    assert said["main"]["MASTER_PORT"] is None


def test_torchrun_starts_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    (plugin,) = process_plugins()
    assert isinstance(plugin, ProcessesOfCommand)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert process_plugins() == []


def test_none_is_started_where_the_user_started_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    two = trainer(2, "ddp")
    assert two.strategy.cluster_environment.start(two) == []  # type: ignore[attr-defined]


def test_none_is_started_next_to_copies_of_the_process() -> None:
    assert process_plugins("ddp_spawn") == []
    assert process_plugins({"_target_": "DDPStrategy", "start_method": "fork"}) == []
    with children_end_too(trainer(2, "ddp_spawn")):
        pass


def test_one_device_needs_no_other_process() -> None:
    with children_end_too(trainer(1)):
        pass
