"""All our metrics against pycocotools' COCOeval alone, on the same detections, in one process.

Self-made data: 300 images with 46 chromosomes each; per image 100 final detections and 300 top-1
boxes before NMS. Timed in alternation; the ratio of each pair counts, so that a loaded machine
slows both. pycocotools is given its data loaded: only evaluate() and accumulate() are timed, while
our time is all of compute_metrics, from predictions to the last number.

Run as a script: ``python tests/benchmarks/bench_evaluation.py``.
"""

from __future__ import annotations

import contextlib
import io
import json
import time

import numpy as np
from measurement import Measurement
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from deepacc_d2.chromosomes import NUM_CLASSES, coco_categories
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImagePrediction

GOAL = 0.5


def make_data(
    num_images: int = 300, num_proposals: int = 300, num_detections: int = 100, seed: int = 0
) -> tuple[dict, list[ImagePrediction]]:
    """A trained detector's output, roughly: most proposals sit on a chromosome, jittered."""
    rng = np.random.default_rng(seed)
    images, annotations, predictions = [], [], []
    for image_id in range(1, num_images + 1):
        images.append({"id": image_id, "width": 700, "height": 600, "file_name": f"{image_id}.png"})
        classes = np.repeat(np.arange(23), 2)
        size = rng.uniform(20, 90, (len(classes), 2))
        corner = rng.uniform(0, 600, (len(classes), 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        annotations += [
            {
                "id": len(annotations) + i + 1,
                "image_id": image_id,
                "category_id": int(classes[i]) + 1,
                "bbox": [*corner[i].tolist(), *size[i].tolist()],
                "area": float(size[i].prod()),
                "iscrowd": 0,
            }
            for i in range(len(classes))
        ]
        which = rng.integers(0, len(classes), num_proposals)
        which[: len(classes)] = np.arange(len(classes))
        found = boxes[which] + rng.normal(0, 3, (num_proposals, 4))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        right = rng.random(num_proposals) < 0.85
        labels = np.where(right, classes[which], rng.integers(0, NUM_CLASSES, num_proposals))
        scores = rng.beta(4, 1, num_proposals) * np.where(right, 1.0, 0.6)
        final = slice(0, num_detections)
        predictions.append(
            ImagePrediction(
                image_id, found[final], scores[final], labels[final], found, scores, labels
            )
        )
    coco = {"images": images, "annotations": annotations, "categories": coco_categories()}
    return coco, predictions


def load_pycocotools(coco: dict, predictions: list[ImagePrediction]) -> tuple[COCO, COCO]:
    """The same ground truth and final detections as pycocotools objects."""
    truth = COCO()
    truth.dataset = json.loads(json.dumps(coco))
    results = [
        {
            "image_id": p.image_id,
            "category_id": int(k) + 1,
            "bbox": [float(x0), float(y0), float(x1) - float(x0), float(y1) - float(y0)],
            "score": float(score),
        }
        for p in predictions
        for (x0, y0, x1, y1), score, k in zip(p.boxes, p.scores, p.classes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes(results)
    return truth, found


def run(turns: int = 5) -> list[Measurement]:
    """Times both in alternation; the median of the ratios, ours / pycocotools."""
    coco, predictions = make_data()
    truth, found = load_pycocotools(coco, predictions)
    compute_metrics(coco, predictions[:1])  # first-call costs of torch and of imports
    ours, theirs = [], []
    for _ in range(turns):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
        theirs.append(time.perf_counter() - start)
        start = time.perf_counter()
        metrics = compute_metrics(coco, predictions)
        ours.append(time.perf_counter() - start)
    reference = evaluation.eval["precision"][:, :, :, 0, -1]
    reference_ap = 100.0 * float(reference[reference > -1].mean())
    return [
        Measurement(
            name="all metrics / pycocotools COCOeval",
            value=float(np.median(np.array(ours) / np.array(theirs))),
            goal=f"<= {GOAL}",
            unit="x",
            how=f"time for 300 images, COCOeval.evaluate and accumulate, median of {turns} turns",
            details={
                "ours_seconds": float(np.median(ours)),
                "pycocotools_seconds": float(np.median(theirs)),
                "turns": turns,
                "coco_ap": metrics.coco_ap,
                "coco_ap_pycocotools": reference_ap,
            },
        )
    ]


if __name__ == "__main__":
    print(run()[0])
