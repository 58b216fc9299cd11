from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.utils.data import Dataset

from deepacc_lightning.core.worker_loader import (
    LoaderError,
    Packed,
    WorkerLoader,
    identity,
    loader_error,
)
from deepacc_lightning.training.datamodule import init_worker


class Items(Dataset):
    """Dicts as the mapper makes them."""

    def __init__(self, side: int = 8, dies: bool = False) -> None:
        self.side = side
        self.dies = dies

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, object]:
        if self.dies and index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        instances = Instances((self.side, self.side))
        instances.gt_boxes = Boxes(torch.full((2, 4), float(index)))
        instances.gt_classes = torch.tensor([index, 23])
        image = torch.full((1, self.side, self.side), index, dtype=torch.uint8)
        return {"image": image, "instances": instances, "image_id": index}


def loader(workers: int, **options: object) -> WorkerLoader:
    return WorkerLoader(
        Items(**options),
        batch_size=2,
        num_workers=workers,
        collate_fn=identity,
        worker_init_fn=init_worker,
    )


def test_batches_of_processes_are_those_of_none_and_not_in_shared_memory() -> None:
    for alone, sent in zip(loader(0), loader(1), strict=True):
        for a, b in zip(alone, sent, strict=True):
            assert not b["image"].is_shared()
            assert not b["instances"].gt_boxes.tensor.is_shared()
            assert b["image"].dtype == torch.uint8
            torch.testing.assert_close(a["image"], b["image"])
            torch.testing.assert_close(
                a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor
            )
            assert a["instances"].gt_classes.tolist() == b["instances"].gt_classes.tolist()
            b["image"] += 1  # may be written to


def test_what_numpy_lacks_is_packed_as_well() -> None:
    given = {
        "bf16": torch.ones(2, dtype=torch.bfloat16),
        "grad": torch.ones(2, requires_grad=True),
        "scalar": torch.tensor(3.5),
        "turned": torch.arange(6).reshape(2, 3).T,
        "array": np.arange(3),
    }
    found = Packed(given).unpack()
    assert found["bf16"].dtype == torch.bfloat16
    assert found["grad"].requires_grad
    assert found["scalar"].shape == ()
    assert found["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["array"].tolist() == [0, 1, 2]


def test_a_small_dev_shm_stops_nothing() -> None:
    """Docker's 64 MB, in little: three batches of 8 MB through a /dev/shm of 1 MB."""
    program = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, "tests/lightning/core")
        import test_worker_loader as here
        found = [item["image"] for batch in here.loader(2, side=2048) for item in batch]
        print(sum(int(image.max()) > 0 for image in found), flush=True)
        """
    )
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    mounted = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", mounted], check=False, capture_output=True)
    if tried.returncode:
        pytest.skip("may not mount here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounted} && exec "$0" -c "$1"', sys.executable, program],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "5"  # all but the first, which is black


def test_a_killed_process_is_one_line() -> None:
    with pytest.raises(LoaderError, match=r"loader process \d+ .*ended.*num_workers") as told:
        list(loader(1, dies=True))
    assert "\n" not in str(told.value)


def test_signals_of_others_end_no_process_and_the_own_one_does() -> None:
    # Tests before may have left processes of their own.
    others = set(multiprocessing.active_children())
    batches = iter(loader(1))
    next(batches)
    (process,) = set(multiprocessing.active_children()) - others
    # A scheduler's may come from anywhere: here from a program, again and again.
    for _ in range(3):
        subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
    assert len(list(batches)) == 2
    process.join(60)  # it is done

    batches = iter(loader(1))
    next(batches)
    (process,) = set(multiprocessing.active_children()) - others
    process.terminate()
    process.join(60)
    assert not process.is_alive()


def test_no_process_outlives_a_killed_one() -> None:
    """Not one, either, that still has a batch to send, larger than a pipe takes at once."""
    program = textwrap.dedent(
        """
        import multiprocessing, os, signal, sys, time
        sys.path.insert(0, "tests/lightning/core")
        import test_worker_loader as here
        batches = iter(here.loader(1, side=2048))
        next(batches)
        time.sleep(1)
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = Path(f"/proc/{int(process.stdout.readline())}/stat")
    process.wait(60)
    until = time.monotonic() + 60
    while worker.exists() and worker.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_processes_that_cannot_start_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter", full)
    with pytest.raises(LoaderError, match=r"No space left on device.*--shm-size"):
        list(loader(1))


def test_errors_of_the_program_stay_what_they_are() -> None:
    assert loader_error(RuntimeError("shape mismatch")) is None
    assert loader_error(ValueError("DataLoader worker (pid 3) exited unexpectedly")) is None
