"""Draws and writes images, in this process or in several.

Workers are fresh interpreters that run :func:`main` of this module alone: they read their jobs
from standard input and answer one JSON line for each. Not multiprocessing: a forked child of a
process in which OpenCV or PyTorch already runs threads can hang forever, and a spawned one
imports the caller's whole program again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.render import render_metaphase
from deepacc_d2.errors import DataError


@dataclasses.dataclass(frozen=True)
class Job:
    """One image: its split, case number and cell number."""

    split: str
    case: int
    cell: int


def write_image(config: SyntheticConfig, folder: Path, job: Job) -> dict[str, Any]:
    """Renders one image and writes it as JPEG.

    Returns:
        ``split``; ``record`` of :func:`render_metaphase` with ``file_name``; ``histogram`` of the
        256 gray levels; ``sha256`` of the file.
    """
    image, record = render_metaphase(config, job.case, job.cell)
    quality = [cv2.IMWRITE_JPEG_QUALITY, record.pop("jpeg_quality")]
    encoded = cv2.imencode(".jpg", image, quality)[1].tobytes()
    record["file_name"] = f"{record['case_id']}_{job.cell:02d}.jpg"
    (folder / record["file_name"]).write_bytes(encoded)
    return {
        "split": job.split,
        "record": record,
        "histogram": np.bincount(image.ravel(), minlength=256).tolist(),
        "sha256": hashlib.sha256(encoded).hexdigest(),
    }


def _start(config: SyntheticConfig, folder: Path, jobs: Sequence[Job]) -> subprocess.Popen[str]:
    """Starts a worker and hands it its jobs."""
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    worker = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    order = {
        "config": dataclasses.asdict(config),
        "folder": str(folder),
        "jobs": [dataclasses.astuple(job) for job in jobs],
    }
    assert worker.stdin is not None
    with (
        contextlib.suppress(BrokenPipeError),
        worker.stdin as stdin,
    ):  # its silence is noticed below
        stdin.write(json.dumps(order))
    return worker


def run_jobs(
    config: SyntheticConfig, folder: Path, jobs: Sequence[Job], num_workers: int
) -> Generator[dict[str, Any]]:
    """Yields the results of :func:`write_image` for all jobs, in their order.

    Args:
        config: options of the generator.
        folder: for the images; must exist.
        jobs: images to draw.
        num_workers: processes; 0 or 1 draws in this one.

    Raises:
        DataError: a worker died.
        OSError: an image cannot be written.
    """
    num_workers = min(num_workers, len(jobs))
    if num_workers <= 1:
        for job in jobs:
            yield write_image(config, folder, job)
        return
    workers: list[subprocess.Popen[str]] = []
    try:
        # Job i goes to worker i % num_workers, so that reading in turn restores the order.
        workers += [_start(config, folder, jobs[n::num_workers]) for n in range(num_workers)]
        for number in range(len(jobs)):
            worker = workers[number % num_workers]
            assert worker.stdout is not None
            line = worker.stdout.readline()
            if not line.endswith("\n"):
                raise DataError(
                    f"a worker that draws synthetic images died with status {worker.wait()}: "
                    f"retry with fewer workers than {num_workers}"
                )
            result = json.loads(line)
            if "error" in result:
                raise OSError(result["error"])
            yield result
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()


def main() -> None:
    """A worker: reads an order from standard input, answers a line of JSON an image."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    cv2.setNumThreads(1)
    order = json.load(sys.stdin)
    config = SyntheticConfig(**order["config"])
    # A parent that is gone reads no more: nothing is left to do then.
    with contextlib.suppress(BrokenPipeError):
        for split, case, cell in order["jobs"]:
            try:
                result = write_image(config, Path(order["folder"]), Job(split, case, cell))
            except OSError as error:
                result = {"error": str(error)}
            print(json.dumps(result), flush=True)
