"""A process of peers: ``python -m deepacc_lightning.jobs.peer_job train|detect|race REQUEST...``.

Training and detection of a peer are two processes, so that the memory of each is its own. A race is
of all peers.
"""

from __future__ import annotations

import json
import resource
import sys
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
from deepacc_lightning.jobs.peer_speed import race
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


def detect(name: str, presets: list[str], request: Request) -> dict[str, Any]:
    """Detects in the validation and test views and returns metrics and memory."""
    peer = peer_of(name, presets)
    run, weights = peer.load(request)
    threshold = best_threshold(*detections(run, request.views, "val", VAL_IMAGES))
    coco, found = detections(run, request.views, "test", None)
    metrics = compute_metrics(coco, found, score_threshold=threshold).summary()
    return {
        "weights": weights,
        "threshold": threshold,
        "metrics": metrics,
        "peak_gib": peak_gib(),
    }


def detections(
    run: Detect, views: Path, split: str, limit: int | None
) -> tuple[dict[str, Any], list[ImagePrediction]]:
    """Returns the truth of a split, and what is found in its views."""
    coco = read_split(views, split)
    coco = thin(coco, limit) if limit else coco
    items = tqdm(to_dicts(coco, views), desc=split, unit="image", disable=None)
    return coco, [run(read_gray(item["file_name"]), item["image_id"]) for item in items]


def best_threshold(coco: dict[str, Any], found: list[ImagePrediction]) -> float:
    """Returns the score with the lowest AER; of several, the highest."""
    errors = [compute_metrics(coco, found, score_threshold=float(t)).aer for t in THRESHOLDS]
    best = int(np.flatnonzero(np.array(errors) == min(errors))[-1])
    return round(float(THRESHOLDS[best]), 2)


def peak_gib() -> float:
    """Returns the largest resident memory of this process and its children so far, in GiB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


def read_request(path: Path) -> tuple[str, list[str], Request, int]:
    """Returns what :func:`write_request` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    plain = content["request"]
    plain |= {key: Path(plain[key]) for key in ("views", "folder")}
    request = Request(**plain | {"scale": tuple(plain["scale"])})
    return content["name"], content["presets"], request, content["timed"]


def main() -> None:
    """Reads requests, does what is asked, and writes the facts next to them."""
    action, paths = sys.argv[1], [Path(text) for text in sys.argv[2:]]
    requests = [read_request(path) for path in paths]
    name, presets, request, timed = requests[0]
    torch.set_num_threads(request.threads)
    written = paths[0].with_name(f"{action}.json")
    try:
        if action == "train":
            facts = train(name, presets, request)
        elif action == "detect":
            facts = detect(name, presets, request)
        else:
            peers = {n: (peer_of(n, presets), each) for n, _, each, _ in requests}
            facts = race(peers, timed)
            written = paths[0].parents[1] / f"{action}.json"
    except UserError as error:
        fail(error)
    write_json(written, facts)


if __name__ == "__main__":
    main()
