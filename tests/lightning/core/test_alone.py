"""Every program that writes a folder is the only one at it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from deepacc_d2.data import convert
from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset, write_dataset
from deepacc_d2.sole_use import OccupiedError, sole_use
from deepacc_lightning.core import cli
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.jobs.job import Job


@pytest.fixture
def occupied(tmp_path: Path) -> Iterator[Path]:
    """A place that another job has: here another thread, to the lock the same as a process."""
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with sole_use(tmp_path / "out"):
            begun.set()
            ended.wait(300)

    thread = threading.Thread(target=hold)
    thread.start()
    assert begun.wait(60)
    yield tmp_path / "out"
    ended.set()
    thread.join()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("train", ["data=coco", "data.root=x"]),
        ("predict", ["images=x"]),
        ("context", ["ckpt=a", "data.root=x"]),
        ("karyotype", ["data=coco", "data.root=x"]),
        ("robustness", ["data=coco", "data.root=x"]),
    ],
)
def test_a_second_job_is_refused_before_anything_else(
    occupied: Path, name: str, overrides: list[str]
) -> None:
    program = import_module(f"deepacc_lightning.{name}")
    with pytest.raises(OccupiedError, match="is in use by process"):
        program.run(compose_config(name, [*overrides, f"out={occupied}"]))
    assert not occupied.exists()


def test_a_training_that_is_under_way_is_not_offered_to_be_continued(occupied: Path) -> None:
    from deepacc_lightning import train

    occupied.mkdir()
    (occupied / "run.json").write_text("{}")
    cfg = compose_config("train", ["data=coco", "data.root=x", f"out={occupied}"])
    with pytest.raises(OccupiedError):
        train.begin(cfg)


def test_data_sets_and_jobs_of_sweeps_too(occupied: Path, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(OccupiedError):
        convert.main(["--format", "voc", "--src", str(tmp_path / "src"), "--out", str(occupied)])
    with pytest.raises(OccupiedError):
        write_dataset(occupied, SyntheticConfig(), {"train": 1}, num_workers=1, progress=False)
    job = Job("sep", 0, occupied, ())
    assert job.claimed
    with job.claim() as mine:
        assert not mine


def test_who_needs_a_drawn_data_set_waits_for_it(tmp_path: Path) -> None:
    config = SyntheticConfig(size=(224, 208), cells_per_case=1, num_batches=1, seed=3)
    made: list[object] = []

    def ensure() -> None:
        counts = {"train": 1, "val": 0, "test": 0}
        made.append(ensure_dataset(tmp_path / "set", config, counts, num_workers=1, progress=False))

    threads = [threading.Thread(target=ensure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert made[0] == made[1]  # the time of creation is part of it: one has drawn


def test_other_processes_of_a_job_leave_the_place_to_the_main_one(
    occupied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = cli.alone(lambda cfg: str(cfg.out))(lambda cfg: str(cfg.out))
    cfg = OmegaConf.create({"out": str(occupied)})
    with pytest.raises(OccupiedError):
        program(cfg)
    monkeypatch.setattr(cli, "is_main_process", lambda: False)
    assert program(cfg) == str(occupied)
