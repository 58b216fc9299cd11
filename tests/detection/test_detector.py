"""The Detector: its view, its second look, and that every job gets the same boxes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from deepacc_d2.detection.detector import Detector, load_detector, model_hash
from deepacc_d2.detection.network import Raw
from deepacc_d2.detection.select import SelectionSettings
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import BOX_TO_SIZE, View, ViewSettings, make_view
from deepacc_d2.prediction.predictor import Predictor, load_predictor

MakeContent = Callable[..., dict[str, Any]]


def one_hot(label: int, p: float = 0.98) -> list[float]:
    """Probabilities with one class above the others."""
    values = np.full(25, (1 - p) / 24)
    values[label] = p
    return values.tolist()


class DarkParts:
    """Finds what is dark, as one box a part; in images longer than given only half of it."""

    def __init__(self, blind_above: int = 10_000) -> None:
        self.blind_above = blind_above
        self.seen: list[Gray] = []

    def __call__(self, image: Gray) -> Raw:
        self.seen.append(image)
        _, _, stats, _ = cv2.connectedComponentsWithStats((image < 150).astype(np.uint8))
        boxes = stats[1:, :4].astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        if max(image.shape) > self.blind_above:
            boxes = boxes[: len(boxes) // 2]
        return boxes, np.array([one_hot(0)] * len(boxes), dtype=np.float32).reshape(-1, 25)


def squares() -> Gray:
    """Forty dark squares of 30 pixels, on a light plane of 700 pixels a side."""
    image = np.full((700, 700), 235, dtype=np.uint8)
    for n in range(40):
        y, x = 60 + 90 * (n // 7), 60 + 85 * (n % 7)
        image[y : y + 30, x : x + 30] = 60
    return image


LOOKING = ViewSettings(chromosome_size=30 / BOX_TO_SIZE, max_size=1400, tone=False, fit_size=700)


def first_view(image: Gray, zoom: float) -> View:
    """A view of the whole image at a zoom that a loader may have chosen wrongly."""
    side = round(700 * zoom)
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return View(np.asarray(small, dtype=np.uint8), zoom, (0, 0, 700, 700), False, True, "first")


@pytest.mark.parametrize("zoom", [0.6, 0.8, 1.3])
def test_a_second_look_brings_chromosomes_to_size(zoom: float) -> None:
    image, network = squares(), DarkParts()
    looking = Detector(network, LOOKING)
    boxes, probabilities, _, view = looking.detect(image, first_view(image, zoom))
    assert len(network.seen) == 2
    assert view.zoom == pytest.approx(1.0, rel=0.05)
    assert "second look" in view.note
    # Boxes are of the second look, and in pixels of the image.
    order = np.lexsort((boxes[:, 0], boxes[:, 1].round(-1)))
    assert boxes[order[0]] == pytest.approx([60, 60, 90, 90], abs=1.5)
    assert len(boxes) == len(probabilities) == 40
    again = looking.detect(image, first_view(image, zoom))
    np.testing.assert_array_equal(again.boxes, boxes)
    cell = Predictor(looking).cell(image, view=first_view(image, zoom))
    assert cell.view == view.facts()


def test_one_look_is_enough_where_the_size_was_right_or_the_switch_is_off() -> None:
    image, network = squares(), DarkParts()
    view = Detector(network, LOOKING).propose(image, first_view(image, 1.04)).view
    assert (len(network.seen), view.note) == (1, "first")
    off = Detector(network, replace(LOOKING, second_look=False))
    view = off.propose(image, first_view(image, 0.6)).view
    assert (len(network.seen), view.note) == (2, "first")
    assert off.settings()["view"]["second_look"] is False
    assert Detector(network, LOOKING).settings()["view"]["second_look"] is True


def test_a_second_look_that_finds_far_fewer_does_not_count() -> None:
    image, network = squares(), DarkParts(blind_above=600)
    boxes, _, _, view = Detector(network, LOOKING).detect(image, first_view(image, 0.7))
    assert len(network.seen) == 2
    assert (len(boxes), view.note, view.zoom) == (40, "first", 0.7)


def metaphase() -> Gray:
    """Some dark shapes on a light plane."""
    image = np.full((150, 220), 230, dtype=np.uint8)
    cv2.ellipse(image, (60, 60), (30, 8), 20, 0, 360, 90, -1)
    cv2.ellipse(image, (150, 90), (20, 7), 80, 0, 360, 110, -1)
    return image


@pytest.mark.parametrize("preset", ["siamese_gia", "retinanet"])
def test_what_the_metrics_take_is_what_predict_keeps(
    preset: str, tmp_path: Path, make_content: MakeContent
) -> None:
    path = tmp_path / "model.ckpt"
    selection = {"min_foreground": 0.0 if preset != "retinanet" else 0.01, "iou": 0.3}
    torch.save({**make_content(preset=preset), "selection": selection}, path)
    detector, image = load_detector(path, device="cpu"), metaphase()
    assert detector.selection == SelectionSettings(**selection)
    found, taken = detector.detect(image), detector.predict(image, 7)
    assert taken.image_id == 7
    assert taken.kept_boxes is not None
    assert len(taken.kept_boxes) == len(found.boxes) > 0
    np.testing.assert_allclose(taken.kept_boxes, found.boxes, rtol=1e-6)
    np.testing.assert_array_equal(taken.kept_classes, found.probabilities[:, :24].argmax(axis=1))
    cell = load_predictor(path, device="cpu").cell(image)
    assert sorted(c.box for c in cell.chromosomes) == sorted(map(tuple, found.boxes.tolist()))
    proposals = detector.propose(image)
    np.testing.assert_array_equal(proposals.view.image, make_view(image, detector.view).image)
    np.testing.assert_array_equal(proposals.probabilities[found.rows], found.probabilities)
    assert len(taken.top1_boxes) <= len(proposals.boxes)


def test_names_hashes_and_bad_files(tmp_path: Path, make_content: MakeContent) -> None:
    assert load_detector().name.startswith("DeepACC")
    path = tmp_path / "model.ckpt"
    torch.save(make_content("model.roi_heads.box_predictor.test_score_thresh=0.2"), path)
    detector = load_detector(path, min_foreground=0.7, normalize=False)
    assert (detector.name, detector.least_score) == ("model.ckpt", 0.2)
    assert detector.selection.min_foreground == 0.7
    assert not detector.view.normalize
    other = tmp_path / "other.ckpt"
    other.write_bytes(path.read_bytes() + b"0")
    assert len({model_hash(path), model_hash(other)}) == 2
    with pytest.raises(DataError, match=r"none\.onnx does not exist"):
        load_detector(tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match="precision=8: choose"):
        load_detector(path, precision="8")
