"""A Detectron2 ``DatasetEvaluator`` over the metrics of DeepACC."""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from deepacc_d2.detection.select import LEAST_SCORE, SelectionSettings, decode
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImagePrediction, Metrics

logger = logging.getLogger(__name__)


class ChromosomeEvaluator(DatasetEvaluator):
    """Collects predictions, gathers them over the ranks and computes all metrics.

    After :meth:`evaluate`, ``metrics`` and ``predictions`` (one per image, by image id) hold what
    the report needs; on every rank, so that a checkpoint callback sees one value everywhere.

    Args:
        coco: ground truth of the split, a COCO dictionary with category ids 1..24.
        least_score: see :func:`~deepacc_d2.detection.select.decode`.
        only_seen: leaves images without predictions out, instead of counting them as empty; for a
            look at a part of the split. ``coco`` is that part then.
        **options: thresholds, passed to :func:`compute_metrics`.
    """

    def __init__(
        self,
        coco: Mapping[str, Any],
        *,
        least_score: float = LEAST_SCORE,
        only_seen: bool = False,
        **options: Any,
    ) -> None:
        self.coco = coco
        self.least_score = least_score
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
            outputs: each with ``proposals`` (one row per proposal, before NMS, with
                ``probabilities``), boxes in pixels of the original image. Where that is missing,
                as with a plain Detectron2 model, ``instances`` (final detections) stand in for it.
        """
        for given, found in zip(inputs, outputs, strict=True):
            if "proposals" in found:
                proposals = found["proposals"]
                boxes, probabilities = (
                    tensor.detach().float().cpu().numpy()
                    for tensor in (proposals.pred_boxes.tensor, proposals.probabilities)
                )
                settings, least = SelectionSettings(), self.least_score
                image_id = given["image_id"]
                self.predictions.append(
                    decode(image_id, boxes, probabilities, settings, least_score=least)
                )
                continue
            if not self._warned:
                logger.warning(
                    "the model gives no 'proposals': map50_max, acc and aer are computed from its "
                    "final detections instead"
                )
                self._warned = True
            final = _arrays(found["instances"])
            self.predictions.append(ImagePrediction(given["image_id"], *final, *final))

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


def _arrays(found: Instances) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns boxes, scores and classes of Detectron2's detections."""
    return (
        found.pred_boxes.tensor.detach().float().cpu().numpy(),
        found.scores.detach().float().cpu().numpy(),
        found.pred_classes.detach().cpu().numpy(),
    )
