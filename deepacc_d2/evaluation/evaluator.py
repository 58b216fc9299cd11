"""A Detectron2 ``DatasetEvaluator`` over the metrics of DeepACC."""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImagePrediction, Metrics

logger = logging.getLogger(__name__)


class ChromosomeEvaluator(DatasetEvaluator):
    """Collects predictions, gathers them over the ranks and computes all metrics.

    After :meth:`evaluate`, ``metrics`` and ``predictions`` (one per image, by image id) hold what
    the report needs; on every rank, so that a checkpoint callback sees one value everywhere.

    Args:
        coco: ground truth of the split, a COCO dictionary with category ids 1..24.
        only_seen: leaves images without predictions out, instead of counting them as empty; for a
            look at a part of the split. ``coco`` is that part then.
        **options: thresholds, passed to :func:`compute_metrics`.
    """

    def __init__(self, coco: Mapping[str, Any], *, only_seen: bool = False, **options: Any) -> None:
        self.coco = coco
        self.only_seen = only_seen
        self.options = options
        self.reset()

    def reset(self) -> None:
        """Forgets all predictions and metrics."""
        self.predictions: list[ImagePrediction] = []
        self.metrics: Metrics | None = None
        self._warned = False

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        """Takes the dictionaries that went into and came out of a Detectron2 model.

        Args:
            inputs: each with ``image_id``.
            outputs: each with ``instances`` (final detections) and ``top1`` (one row per proposal,
                before NMS), boxes in pixels of the original image. Where ``top1`` is missing, as
                with a plain Detectron2 model, the final detections stand in for it.
        """
        for given, found in zip(inputs, outputs, strict=True):
            top1 = found.get("top1")
            if top1 is None:
                if not self._warned:
                    logger.warning(
                        "the model gives no 'top1' boxes: map50_max, acc and aer are computed "
                        "from its final detections instead"
                    )
                    self._warned = True
                top1 = found["instances"]
            self.predictions.append(
                ImagePrediction.from_instances(given["image_id"], found["instances"], top1)
            )

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Computes the metrics; every rank must call it and gets the same result.

        Returns:
            ``{"bbox": {the nine scalars in percent}}``, as Detectron2's tools expect it.

        Raises:
            DataError: see :func:`compute_metrics`.
        """
        predictions = self.predictions
        if comm.get_world_size() > 1:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.all_gather(predictions)))
        # A distributed sampler repeats images to give every rank as many: the first one counts.
        unique = {p.image_id: p for p in reversed(predictions)}
        self.predictions = [unique[image_id] for image_id in sorted(unique)]
        if self.only_seen:
            self.coco = part_of(self.coco, unique)
        without = len(self.coco["images"]) - len(self.predictions)
        if without > 0:
            logger.warning("%d images have no predictions and count as empty", without)
        self.metrics = compute_metrics(self.coco, self.predictions, **self.options)
        return OrderedDict(bbox=self.metrics.summary())


def part_of(coco: Mapping[str, Any], image_ids: Container[int]) -> dict[str, Any]:
    """Returns a COCO dictionary with some of its images, and their annotations, alone."""
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in image_ids],
        "annotations": [a for a in coco["annotations"] if a["image_id"] in image_ids],
    }
