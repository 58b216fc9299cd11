"""Trainings in two processes on the CPU, started as a user would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from deepacc_d2.errors import ConfigError
from deepacc_lightning import train
from deepacc_lightning.core.config import compose_config
from tests.lightning.programs import Programs

HERE = Path(__file__).parent
TRAIN = "deepacc_lightning.train"
Run = Callable[..., subprocess.CompletedProcess[str]]
# Images of different sizes are padded to the largest of a process's batch, which batch norm sees.
SAME_SIZE = "[{_target_: detectron2.data.transforms.Resize, shape: [96,96]}]"
ONE = ["scale.batch_size=2", f"scale.train_augmentations={SAME_SIZE}"]
TWO = [*ONE, "trainer=ddp_sim", "+trainer.enable_progress_bar=false", "scale.batch_size=1"]


@pytest.fixture
def run(programs: Programs) -> Run:
    """Runs a training, by torchrun if its words are given."""

    def start(
        overrides: list[str], *extra: str, launcher: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        # What the shared overrides append to the trainer would be lost to the choice of another.
        given = [o for o in overrides if not o.startswith("+trainer.")]
        if not launcher:
            return programs.run(TRAIN, *given, *extra)
        command = [sys.executable, *launcher, "-m", TRAIN, *given, *extra]
        environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=240
        )

    return start


def _curves(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "csv" / "metrics.csv")


def _top1(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "test" / "predictions_top1.json").read_text())


@pytest.mark.parametrize("experiment", ["siamese_gia", "retinanet"])
def test_two_processes_train_what_one_does(
    run: Run, overrides: list[str], tmp_path: Path, experiment: str
) -> None:
    preset = [f"experiment={experiment}", "scale.max_epochs=2"]
    done = run(overrides, *preset, *TWO, f"out={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    torch.set_num_threads(1)
    train.run(compose_config("train", [*overrides, *preset, *ONE, f"out={tmp_path / 'one'}"]))

    one, two = _curves(tmp_path / "one"), _curves(tmp_path / "two")
    losses = [name for name in one if name.startswith("train/loss")]
    assert "train/loss" in losses
    assert len(losses) > 2
    steps = one.dropna(subset=["train/loss"])["step"].tolist()
    assert steps == two.dropna(subset=["train/loss"])["step"].tolist() == list(range(6))
    for name in losses:
        found, wanted = (frame[name].dropna().to_numpy()[:3] for frame in (two, one))
        assert found == pytest.approx(wanted, abs=1e-4), name
    rates = "train/lr" if "train/lr" in one else next(c for c in one if c.startswith("lr-"))
    assert two[rates].dropna().tolist() == pytest.approx(one[rates].dropna().tolist())

    # Three test images over two processes: each is counted once.
    metrics = [
        json.loads((tmp_path / name / "test" / "metrics.json").read_text())
        for name in ("one", "two")
    ]
    assert metrics[0]["num_images"] == metrics[1]["num_images"] == 3
    for name, value in metrics[0].items():
        if isinstance(value, float):
            assert metrics[1][name] == pytest.approx(value, abs=1e-3), name
    # RetinaNet starts with scores of about 0.01, so it finds nothing yet.
    images = [[box["image_id"] for box in _top1(tmp_path / name)] for name in ("one", "two")]
    assert sorted(images[0]) == sorted(images[1])
    assert len(set(images[1])) == (0 if experiment == "retinanet" else 3)
    facts = json.loads((tmp_path / "two" / "run.json").read_text())
    assert facts["status"] == "finished"


def _free_port() -> str:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def _torchrun() -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={_free_port()}")


def test_torchrun_agrees_on_the_run_directory(
    run: Run, shared_overrides: list[str], tmp_path: Path
) -> None:
    runs = "out=" + str(tmp_path) + "/${run_time:%Y-%m-%d_%H-%M-%S-%f}"
    # The microsecond of either process's start would differ.
    done = run(shared_overrides, *TWO, "test=false", runs, launcher=_torchrun())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("training,") == 1
    (out,) = tmp_path.iterdir()
    assert len(_curves(out).dropna(subset=["train/loss"])) == 3
    assert (out / "checkpoints" / "last.ckpt").is_file()


def test_processes_with_different_data_say_so(
    run: Run, shared_overrides: list[str], tiny_data: Path, tmp_path: Path
) -> None:
    for rank, name in enumerate(("0", "1")):
        (tmp_path / name).mkdir()
        for child in tiny_data.iterdir():
            (tmp_path / name / child.name).symlink_to(child)
        info = json.loads((tiny_data / "dataset.json").read_text())
        info["fingerprint"] = str(rank) * 64
        (tmp_path / name / "dataset.json").unlink()
        (tmp_path / name / "dataset.json").write_text(json.dumps(info))
    root = "data.root=" + str(tmp_path) + "/${oc.env:LOCAL_RANK,0}"
    out = tmp_path / "run"
    done = run([*shared_overrides, root], *TWO, f"out={out}")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith(
        f"error: process 1 has data set 111111111111 in {tmp_path / '1'}, process 0 has 0000"
    )
    assert json.loads((out / "run.json").read_text())["status"] == "failed"


def test_sigterm_to_one_process_ends_both_with_a_checkpoint(
    run: Run, overrides: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    callback = [
        "+callbacks.signal._target_=signal_at_step.SignalAtStep",
        "+callbacks.signal.name=SIGTERM",
        "+callbacks.signal.step=1",
    ]
    done = run(overrides, *TWO, *callback, f"out={out}", "test=false")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert f"interrupted by SIGTERM; checkpoint kept in {out}" in done.stderr
    content: dict[str, Any] = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 2
    assert content["deepacc_training"]["effective_batch"] == 2

    # Lightning starts the second process while the first one has begun to rewrite run.json.
    again = run([], f"resume={out}")
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    assert _curves(out).dropna(subset=["train/loss"])["step"].tolist() == [0, 1, 2]

    # Schedule and position are those of two images a step.
    one = compose_config(
        "train", [*overrides, "scale.batch_size=1", f"ckpt_path={out}/checkpoints/last.ckpt"]
    )
    with pytest.raises(ConfigError, match="a training with 2 images a step"):
        train.run(one)


def test_ddp_without_a_gpu_is_refused(run: Run, overrides: list[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run(overrides, "trainer=ddp")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: trainer.accelerator=gpu asks for a GPU")
    assert "trainer=ddp_sim" in done.stderr
