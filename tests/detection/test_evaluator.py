from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from deepacc_d2.detection.evaluator import ChromosomeEvaluator
from deepacc_d2.detection.select import SelectionSettings, decode
from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImagePrediction

K = 24


def ground_truth(images: int) -> dict:
    """Three chromosomes an image, of classes 1 to 3."""
    boxes = [(10.0 * k, 5.0, 8.0, 20.0) for k in range(3)]
    annotations = [
        {"id": 10 * n + k, "image_id": n, "category_id": k + 1, "bbox": list(box)}
        for n in range(1, images + 1)
        for k, box in enumerate(boxes)
    ]
    return {"images": [{"id": n} for n in range(1, images + 1)], "annotations": annotations}


def output(seed: int) -> dict[str, Instances]:
    """Proposals near the truth, some of them twice, and detections of a plain detector."""
    rng = np.random.default_rng(seed)
    corners = np.array([[10.0 * k, 5, 10.0 * k + 8, 25] for k in (0, 0, 1, 2, 5)])
    proposals = Instances((160, 200))
    proposals.pred_boxes = Boxes(torch.as_tensor(corners + rng.normal(size=(5, 4)) * 0.4).float())
    logits = rng.normal(size=(5, K + 1))
    logits[np.arange(5), [0, 1, 1, 2, 3]] += 5
    proposals.probabilities = torch.as_tensor(logits).float().softmax(dim=1)
    scores, classes = proposals.probabilities[:, :K].max(dim=1)
    final = Instances((160, 200))
    final.pred_boxes, final.scores, final.pred_classes = proposals.pred_boxes, scores, classes
    return {"proposals": proposals, "instances": final}


def expected(seed: int, image_id: int) -> ImagePrediction:
    found = output(seed)["proposals"]
    boxes, probabilities = found.pred_boxes.tensor.numpy(), found.probabilities.numpy()
    return decode(image_id, boxes, probabilities, SelectionSettings())


def test_equals_the_pure_functions_and_resets() -> None:
    coco = ground_truth(3)
    evaluator = ChromosomeEvaluator(coco, score_threshold=0.3)
    predictions = [expected(n, n) for n in (1, 2, 3)]
    for _ in range(2):
        evaluator.reset()
        evaluator.process([{"image_id": 1}, {"image_id": 2}], [output(1), output(2)])
        evaluator.process([{"image_id": 3}], [output(3)])
        result = evaluator.evaluate()
        metrics = compute_metrics(coco, predictions, score_threshold=0.3)
        assert result["bbox"] == metrics.summary()
        assert evaluator.metrics is not None
        assert evaluator.metrics.to_dict() == metrics.to_dict()
        assert evaluator.metrics.predict is not None
    assert [p.image_id for p in evaluator.predictions] == [1, 2, 3]


def test_two_ranks_are_gathered_and_repeated_images_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coco = ground_truth(3)
    # What a sampler that pads does: rank 1 gets an image of rank 0 again.
    ranks = [ChromosomeEvaluator(coco), ChromosomeEvaluator(coco)]
    ranks[0].process([{"image_id": 1}, {"image_id": 3}], [output(1), output(3)])
    ranks[1].process([{"image_id": 2}, {"image_id": 1}], [output(2), output(1)])
    collected = [list(rank.predictions) for rank in ranks]
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "synchronize", lambda: None)
    monkeypatch.setattr(comm, "all_gather", lambda data: collected)
    metrics = compute_metrics(coco, [expected(n, n) for n in (1, 2, 3)]).to_dict()
    for rank in ranks:
        rank.evaluate()
        assert rank.metrics is not None
        assert rank.metrics.to_dict() == metrics
        assert len(rank.predictions) == 3


def test_a_model_without_proposals(caplog: pytest.LogCaptureFixture) -> None:
    coco = ground_truth(2)
    evaluator = ChromosomeEvaluator(coco)
    for n in (1, 2):
        evaluator.process([{"image_id": n}], [{"instances": output(n)["instances"]}])
    evaluator.evaluate()
    stand_in = []
    for n in (1, 2):
        found = output(n)["instances"]
        parts = found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_classes.numpy()
        stand_in.append(ImagePrediction(n, *parts, *parts))
    assert evaluator.metrics is not None
    assert evaluator.metrics.to_dict() == compute_metrics(coco, stand_in).to_dict()
    assert evaluator.metrics.predict is None
    assert caplog.text.count("no 'proposals'") == 1


def test_missing_images_are_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    evaluator = ChromosomeEvaluator(ground_truth(2))
    evaluator.process([{"image_id": 2}], [output(2)])
    evaluator.evaluate()
    assert "1 images have no predictions" in caplog.text


def test_unknown_image() -> None:
    evaluator = ChromosomeEvaluator(ground_truth(1))
    evaluator.process([{"image_id": 7}], [output(1)])
    with pytest.raises(DataError, match="no such image in the ground truth"):
        evaluator.evaluate()
