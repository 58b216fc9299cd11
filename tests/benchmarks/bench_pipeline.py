"""Our image pipeline against Detectron2's, images a second with one worker.

Same JPEG files, same order, batches of four, same augmentations (resize to the same size, random
horizontal flip): our data module's loader against ``DatasetMapper`` under
``build_detection_train_loader``, each at the sizes of both scales. Either loader runs alone, in
turns; a turn is timed from its first batch on, when the worker is busy and has nothing in store.

Run as a script: ``python tests/benchmarks/bench_pipeline.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.datasets import load_coco_json
from detectron2.data.samplers import TrainingSampler
from measurement import Measurement, jpeg_dataset

from deepacc_d2.data.dataset import ChromosomeDataset, read_split, to_dicts
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.images.transforms import ResizeShortestEdge, ResizeToFit
from deepacc_lightning.training.datamodule import ChromosomeDataModule

GOAL = 2
BATCH_SIZE = 4
BATCHES_PER_TURN = 12
FLIP = T.RandomFlip(prob=0.5, horizontal=True)
SCALES: dict[str, tuple[T.Augmentation, T.Augmentation]] = {
    "paper, 1067x800": (ResizeShortestEdge(800, 1067), T.ResizeShortestEdge(800, 1067)),
    "quick, longest side 448": (ResizeToFit(448), T.ResizeShortestEdge(448, 448)),
}
"""Our resize and Detectron2's, by scale; they give the same output sizes."""

Batches = Iterable[list[dict[str, Any]]]


def _ours(root: Path, resize: T.Augmentation) -> Batches:
    augmentations = [resize, FLIP]
    datamodule = ChromosomeDataModule(
        root=root,
        train_augmentations=augmentations,
        test_augmentations=augmentations,
        batch_size=BATCH_SIZE,
        num_workers=1,
    )
    return datamodule.train_dataloader()


def _detectron2(root: Path, resize: T.Augmentation) -> Batches:
    dicts = load_coco_json(str(root / "annotations" / "train.json"), str(root / "images"))
    mapper = DatasetMapper(is_train=True, augmentations=[resize, FLIP], image_format="BGR")
    return build_detection_train_loader(
        dicts,
        mapper=mapper,
        sampler=TrainingSampler(len(dicts), seed=0),
        total_batch_size=BATCH_SIZE,
        aspect_ratio_grouping=False,
        num_workers=1,
    )


def _check_sizes(root: Path, our_resize: T.Augmentation, their_resize: T.Augmentation) -> None:
    """Both must give a pixel as much work: the same output sizes, up to rounding."""
    dataset = ChromosomeDataset(
        to_dicts(read_split(root, "train"), root), MetaphaseMapper([our_resize], is_train=True)
    )
    for item in (dataset[i] for i in range(8)):
        image = np.empty((item["height"], item["width"]), dtype=np.uint8)
        theirs = their_resize.get_transform(image).apply_image(image).shape
        assert np.abs(np.subtract(item["image"].shape[1:], theirs)).max() <= 1


def _turn(make: Callable[[], Batches]) -> float:
    """Images a second of a fresh loader over one turn."""
    iterator = iter(make())
    next(iterator)
    began = time.perf_counter()
    images = sum(len(next(iterator)) for _ in range(BATCHES_PER_TURN))
    return images / (time.perf_counter() - began)


def run(turns: int = 5) -> list[Measurement]:
    """Measures both loaders at both scales, in alternation."""
    logging.getLogger("detectron2").setLevel(logging.ERROR)
    needed = BATCH_SIZE * (BATCHES_PER_TURN + 1)
    results = []
    with jpeg_dataset(needed) as (root, source):
        for scale, (our_resize, their_resize) in SCALES.items():
            _check_sizes(root, our_resize, their_resize)
            our_rates, their_rates = [], []
            for _ in range(turns):
                our_rates.append(_turn(lambda: _ours(root, our_resize)))  # noqa: B023
                their_rates.append(_turn(lambda: _detectron2(root, their_resize)))  # noqa: B023
            results.append(
                Measurement(
                    name=f"image pipeline / Detectron2's, {scale}",
                    value=float(np.median(np.array(our_rates) / np.array(their_rates))),
                    goal=f">= {GOAL}",
                    unit="x",
                    how=f"images/s, one worker, median of {turns} turns; JPEGs: {source}",
                    details={
                        "ours_images_per_second": float(np.median(our_rates)),
                        "detectron2_images_per_second": float(np.median(their_rates)),
                        "images": source,
                        "turns": turns,
                        "images_per_turn": BATCH_SIZE * BATCHES_PER_TURN,
                    },
                )
            )
    return results


if __name__ == "__main__":
    print(*run(), sep="\n")
