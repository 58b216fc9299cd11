"""Small random spreads with predictions, shared by the tests of the evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deepacc_d2.chromosomes import NUM_CLASSES, coco_categories
from deepacc_d2.evaluation.types import ImagePrediction

Case = tuple[dict, list[ImagePrediction]]


def _make(seed: int = 0, num_images: int = 6, crowded: bool = False) -> Case:
    """Chromosomes on 200 px images; proposals jittered, some misnamed, some on background."""
    rng = np.random.default_rng(seed)
    images, annotations, predictions = [], [], []
    for number in range(num_images):
        image_id = 10 * number + 3
        images.append({"id": image_id, "width": 200, "height": 160, "file_name": f"{image_id}.png"})
        num = int(rng.integers(0, 30))
        classes = rng.integers(0, NUM_CLASSES - 2, num)  # X and Y have no ground truth
        corner = rng.uniform(0, 60 if crowded else 150, (num, 2))
        size = rng.uniform(8, 40, (num, 2))
        for c, (x, y), (w, h) in zip(classes, corner, size, strict=True):
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": image_id,
                    "category_id": int(c) + 1,
                    "bbox": [float(x), float(y), float(w), float(h)],
                    "area": float(w * h),
                    "iscrowd": 0,
                }
            )
        truth = np.concatenate([corner, corner + size], axis=1)
        which = rng.integers(0, num, 90) if num else np.zeros(0, dtype=int)
        boxes = truth[which] + rng.normal(0, 3, (len(which), 4))
        stray = rng.uniform(0, 150, (10, 2))
        boxes = np.concatenate(
            [boxes, np.concatenate([stray, stray + rng.uniform(5, 40, (10, 2))], axis=1)]
        )
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = np.concatenate([classes[which], rng.integers(0, NUM_CLASSES, 10)])
        wrong = rng.random(len(labels)) < 0.2
        labels[wrong] = rng.integers(0, NUM_CLASSES, wrong.sum())
        scores = rng.uniform(0.1, 1.0, len(labels))
        final = rng.permutation(len(labels))[:60]
        predictions.append(
            ImagePrediction(
                image_id, boxes[final], scores[final], labels[final], boxes, scores, labels
            )
        )
    coco = {"images": images, "annotations": annotations, "categories": coco_categories()}
    return coco, predictions


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    return _make
