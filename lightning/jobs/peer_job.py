"""One peer, in a process of its own: ``python -m deepacc_lightning.jobs.peer_job train|detect``.

Training and detection are two processes, so that the memory of each is its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.errors import UserError
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImagePrediction
from deepacc_d2.files import write_json
from deepacc_d2.images.read import read_gray
from deepacc_lightning.core.cli import fail
from deepacc_lightning.jobs.peer_networks import Detect, Request, peer_of
from deepacc_lightning.training.datamodule import thin

THRESHOLDS = np.arange(0.05, 0.951, 0.05)
VAL_IMAGES = 60
"""On which the score is chosen from which a detection counts: detectors differ in what they say."""


def write_request(path: Path, name: str, presets: list[str], request: Request, timed: int) -> None:
    """Writes what a job reads."""
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(request).items()}
    write_json(path, {"name": name, "presets": presets, "timed": timed, "request": plain})


def train(name: str, presets: list[str], request: Request) -> dict[str, Any]:
    """Trains a peer and returns how long that took, and how many images it was shown."""
    seen, seconds = peer_of(name, presets).train(request)
    return {"images_seen": seen, "seconds": seconds, "peak_gib": peak_gib()}


def detect(name: str, presets: list[str], request: Request, timed: int) -> dict[str, Any]:
    """Detects in the validation and test views and returns metrics, time and memory."""
    peer = peer_of(name, presets)
    run, weights = peer.load(request)
    threshold = best_threshold(*detections(run, request.views, "val", VAL_IMAGES)[:2])
    coco, found, seconds = detections(run, request.views, "test", None)
    metrics = compute_metrics(coco, found, score_threshold=threshold).summary()
    facts = {
        "weights": weights,
        "threshold": threshold,
        "metrics": metrics,
        "seconds_an_image": float(np.median(seconds)),
        "peak_gib": peak_gib(),
    }
    exported = None if request.gpu else peer.load_exported(request)
    if exported is not None:
        # In turns, so that what disturbs one disturbs both.
        facts["exported_over_eager"] = in_turns(run, exported, request.views, timed)
    return facts


def detections(
    run: Detect, views: Path, split: str, limit: int | None
) -> tuple[dict[str, Any], list[ImagePrediction], list[float]]:
    """Returns the truth of a split, what is found in its views, and seconds of each image."""
    coco = read_split(views, split)
    coco = thin(coco, limit) if limit else coco
    found, seconds = [], []
    for item in tqdm(to_dicts(coco, views), desc=split, unit="image", disable=None):
        gray = read_gray(item["file_name"])
        began = time.perf_counter()
        found.append(run(gray, item["image_id"]))
        seconds.append(time.perf_counter() - began)
    return coco, found, seconds


def best_threshold(coco: dict[str, Any], found: list[ImagePrediction]) -> float:
    """Returns the score with the lowest AER; of several, the highest."""
    errors = [compute_metrics(coco, found, score_threshold=float(t)).aer for t in THRESHOLDS]
    best = int(np.flatnonzero(np.array(errors) == min(errors))[-1])
    return round(float(THRESHOLDS[best]), 2)


def in_turns(eager: Detect, exported: Detect, views: Path, count: int) -> float:
    """Returns how many times as many images a second the exported detector does."""
    items = to_dicts(thin(read_split(views, "test"), count), views)
    ratios = []
    for number, item in enumerate(items):
        gray = read_gray(item["file_name"])
        took = {}
        for run in (eager, exported) if number % 2 else (exported, eager):
            began = time.perf_counter()
            run(gray, item["image_id"])
            took[run] = time.perf_counter() - began
        ratios.append(took[eager] / took[exported])
    return float(np.median(ratios))


def peak_gib() -> float:
    """Returns the largest resident memory of this process and its children so far, in GiB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


def main() -> None:
    """Reads a request, does what is asked, and writes the facts next to it."""
    action, path = sys.argv[1], Path(sys.argv[2])
    content = json.loads(path.read_text(encoding="utf-8"))
    plain = content["request"]
    plain |= {key: Path(plain[key]) for key in ("views", "folder")}
    request = Request(**plain | {"scale": tuple(plain["scale"])})
    torch.set_num_threads(request.threads)
    name, presets = content["name"], content["presets"]
    try:
        if action == "train":
            facts = train(name, presets, request)
        else:
            facts = detect(name, presets, request, content["timed"])
    except UserError as error:
        fail(error)
    write_json(path.with_name(f"{action}.json"), facts)


if __name__ == "__main__":
    main()
