from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.types import ImageCounts, ImagePrediction, Metrics
from deepacc_lightning.wandb.report import (
    box_groups,
    choose_images,
    confusion_chart,
    evaluation_media,
    read_small,
    table,
)

TRUTH = {1: (0, 0, 50, 40), 2: (60, 0, 50, 40), 3: (120, 0, 50, 40)}
"""Boxes of one image of 200x100 pixels: COCO's XYWH by category id."""


@pytest.fixture
def coco() -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": k, "bbox": list(box), "area": 1, "iscrowd": 0}
            for k, box in TRUTH.items()
        ],
        "categories": [],
    }


@pytest.fixture
def predictions() -> list[ImagePrediction]:
    # Right, of a wrong class, where nothing is, and too unsure to count; class 3 is missed.
    boxes = np.array(
        [[0, 0, 50, 40], [60, 0, 110, 40], [150, 60, 210, 90], [120, 0, 170, 40]], dtype=float
    )
    scores, classes = np.array([0.9, 0.8, 0.7, 0.3]), np.array([0, 4, 23, 2])
    return [ImagePrediction(7, boxes, scores, classes, boxes, scores, classes)]


@pytest.fixture
def metrics(coco: dict, predictions: list[ImagePrediction]) -> Metrics:
    return compute_metrics(coco, predictions)


def test_boxes_are_those_that_count_and_name_their_error(
    coco: dict, predictions: list[ImagePrediction], metrics: Metrics
) -> None:
    groups = box_groups(coco, predictions, metrics)
    guesses = groups["predictions"]["box_data"]
    assert [box["box_caption"] for box in guesses] == ["1", "5 is 2", "Y spurious"]
    assert [box["class_id"] for box in guesses] == [0, 4, 23]
    assert [box["scores"]["score"] for box in guesses] == pytest.approx([0.9, 0.8, 0.7])
    assert guesses[1]["position"] == pytest.approx(
        {"minX": 0.3, "maxX": 0.55, "minY": 0.0, "maxY": 0.4}
    )
    assert guesses[2]["position"]["maxX"] == 1.0, "boxes stay within the image"
    truths = groups["ground_truth"]["box_data"]
    assert [box["box_caption"] for box in truths] == ["1", "2", "3 missed"]
    assert groups["ground_truth"]["class_labels"][23] == "Y"


def test_an_image_without_predictions_is_all_missed(coco: dict, metrics: Metrics) -> None:
    groups = box_groups(coco, [], metrics)
    assert groups["predictions"]["box_data"] == []
    assert all("missed" in box["box_caption"] for box in groups["ground_truth"]["box_data"])


def test_confusion_counts_are_the_matrix(metrics: Metrics) -> None:
    counts = {(a, b): n for a, b, n in confusion_chart(metrics).table.data}
    assert len(counts) == 25 * 25
    assert {pair: n for pair, n in counts.items() if n} == {
        ("1", "1"): 1,
        ("2", "5"): 1,
        ("3", "missed"): 1,
        ("spurious", "Y"): 1,
    }
    assert sum(counts.values()) == metrics.confusion.sum()


def ranked(accs: list[int]) -> list[ImageCounts]:
    """One image an acc in percent, ids from 0."""
    return [ImageCounts(i, acc, 0, 100 - acc) for i, acc in enumerate(accs)]


@pytest.mark.parametrize("num", range(13))
def test_choice_of_images_is_a_third_each(num: int) -> None:
    images = ranked([10, 90, 30, 70, 50, 20, 80, 40, 60, 99])
    chosen = choose_images(images, num)
    assert len(chosen) == min(num, 10)
    accs = [counts.tp for _, counts in chosen]
    assert accs == sorted(accs, reverse=True)
    assert len({counts.image_id for _, counts in chosen}) == len(chosen), "none twice"
    names = [name for name, _ in chosen]
    assert len(set(names)) == len(names)
    by_name = {name: counts.tp for name, counts in chosen}
    if num >= 1:
        assert by_name["best_1"] == 99
    if num >= 2:
        assert by_name["worst_1"] == 10
    if num == 6:
        assert names == ["best_1", "best_2", "between_1", "between_2", "worst_2", "worst_1"]
        assert accs == [99, 90, 70, 40, 20, 10]


def test_images_without_chromosomes_are_not_chosen() -> None:
    images = [ImageCounts(0, 0, 3, 0), ImageCounts(1, 1, 0, 0)]
    assert [counts.image_id for _, counts in choose_images(images, 5)] == [1]


def test_media_of_an_evaluation(
    coco: dict, predictions: list[ImagePrediction], metrics: Metrics, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((100, 200, 3), 200, dtype=np.uint8))
    options = {"num_images": 4, "image_size": 50}
    media = evaluation_media(coco, predictions, metrics, tmp_path, **options)
    (row,) = media["images"].data
    assert row[:2] == ["best_1", "a.png"]
    assert row[3:] == [pytest.approx(100 / 5), 3, 1, 2, 2]
    assert media["examples/best_1"].image.size == (50, 25)
    assert media["examples/best_1"].image.mode == "L"
    assert [row[0] for row in media["per_group"].data] == list("ABCDEFG")
    assert sorted(row[0] for row in media["per_class"].data) == sorted(CLASSES)
    assert media["group/A/aer"] == pytest.approx(metrics.per_group["A"]["aer"])
    unread = evaluation_media(coco, predictions, metrics, tmp_path / "nowhere", **options)
    assert not any(key.startswith(("images", "examples")) for key in unread)


def test_large_images_are_scaled_and_small_ones_left(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((300, 400), dtype=np.uint8))
    assert read_small(path, 100).shape == (75, 100)
    assert read_small(path, 1024).shape == (300, 400)
    path.write_bytes(b"damaged")
    assert read_small(path, 100) is None


def test_undefined_numbers_are_empty_cells() -> None:
    content = table(["a", "b"], [[float("nan"), 1], [np.float64(2.5), 3]])
    assert content.data == [[None, 1], [2.5, 3]]
