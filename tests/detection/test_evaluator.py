from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.evaluator import ChromosomeEvaluator
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImagePrediction


def instances(boxes, scores, classes) -> Instances:
    result = Instances((160, 200))
    result.pred_boxes = Boxes(torch.as_tensor(np.array(boxes)))
    result.scores = torch.as_tensor(np.array(scores))
    result.pred_classes = torch.as_tensor(np.array(classes))
    return result


def as_detectron2(predictions: list[ImagePrediction]) -> tuple[list[dict], list[dict]]:
    return [{"image_id": p.image_id} for p in predictions], [
        {
            "instances": instances(p.boxes, p.scores, p.classes),
            "top1": instances(p.top1_boxes, p.top1_scores, p.top1_classes),
        }
        for p in predictions
    ]


def test_equals_the_pure_function_and_resets(make_case):
    coco, predictions = make_case(0)
    evaluator = ChromosomeEvaluator(coco, score_threshold=0.3)
    for _ in range(2):
        evaluator.reset()
        for start in range(0, len(predictions), 2):
            evaluator.process(*as_detectron2(predictions[start : start + 2]))
        result = evaluator.evaluate()
        expected = compute_metrics(coco, predictions, score_threshold=0.3)
        assert result["bbox"] == expected.summary()
        assert evaluator.metrics.to_dict() == expected.to_dict()
    assert [p.image_id for p in evaluator.predictions] == [p.image_id for p in predictions]


def test_two_ranks_are_gathered_and_repeated_images_dropped(make_case, monkeypatch):
    coco, predictions = make_case(1)
    # What a sampler that pads does: rank 1 gets an image of rank 0 again.
    ranks = [ChromosomeEvaluator(coco), ChromosomeEvaluator(coco)]
    ranks[0].process(*as_detectron2(predictions[0::2]))
    ranks[1].process(*as_detectron2([*predictions[1::2], predictions[0]]))
    collected = [list(rank.predictions) for rank in ranks]
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "synchronize", lambda: None)
    monkeypatch.setattr(comm, "all_gather", lambda data: collected)
    expected = compute_metrics(coco, predictions).to_dict()
    for rank in ranks:
        rank.evaluate()
        assert rank.metrics.to_dict() == expected
        assert len(rank.predictions) == len(predictions)


def test_a_model_without_top1_boxes(make_case, caplog):
    coco, predictions = make_case(2)
    inputs, outputs = as_detectron2(predictions)
    for output in outputs:
        del output["top1"]
    evaluator = ChromosomeEvaluator(coco)
    evaluator.process(inputs, outputs)
    evaluator.evaluate()
    stand_in = [
        ImagePrediction(p.image_id, *(p.boxes, p.scores, p.classes) * 2) for p in predictions
    ]
    assert evaluator.metrics.to_dict() == compute_metrics(coco, stand_in).to_dict()
    assert caplog.text.count("no 'top1' boxes") == 1


def test_missing_images_are_mentioned(make_case, caplog):
    coco, predictions = make_case(3)
    evaluator = ChromosomeEvaluator(coco)
    evaluator.process(*as_detectron2(predictions[1:]))
    evaluator.evaluate()
    assert "1 images have no predictions" in caplog.text


def test_half_precision_and_empty_instances():
    empty = instances(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=int))
    half = instances(np.array([[0, 0, 8, 8]], dtype=np.float16), np.float16([0.5]), [3])
    prediction = ImagePrediction.from_instances(4, half, empty)
    assert prediction.boxes.dtype == prediction.scores.dtype == np.float32
    assert prediction.top1_boxes.shape == (0, 4)


def test_unknown_image(make_case):
    coco, predictions = make_case(0)
    evaluator = ChromosomeEvaluator({**coco, "images": coco["images"][1:], "annotations": []})
    evaluator.process(*as_detectron2(predictions[:1]))
    with pytest.raises(DataError, match="no such image in the ground truth"):
        evaluator.evaluate()
