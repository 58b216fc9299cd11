from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import deepacc_d2
from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED
from deepacc_d2.detection.detector import Detector
from deepacc_d2.detection.network import Raw
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import ViewSettings
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.prediction.predictor import Predictor, load_predictor

MakeContent = Callable[..., dict[str, Any]]
# Chromosomes of the size of the boxes below.
PLAIN = ViewSettings(normalize=False, tone=False, max_size=400, fit_size=400, chromosome_size=11.0)


def one_hot(label: int, p: float = 0.98) -> list[float]:
    """Probabilities with one class above the others."""
    values = np.full(25, (1 - p) / 24)
    values[label] = p
    return values.tolist()


class FixedDetector:
    """Tells of the same boxes whatever it is shown, and remembers what that was."""

    def __init__(self, boxes: list[list[float]], labels: list[int]) -> None:
        self.raw: Raw = (
            np.array(boxes, dtype=np.float32).reshape(-1, 4),
            np.array([one_hot(k) for k in labels], dtype=np.float32).reshape(-1, 25),
        )
        self.seen: list[Gray] = []

    def __call__(self, image: Gray) -> Raw:
        self.seen.append(image)
        return self.raw


def grid(count: int) -> list[list[float]]:
    """Boxes that do not overlap, in a view of 400 x 200 pixels."""
    return [[8.0 * n, 10.0, 8.0 * n + 6, 30.0] for n in range(count)]


def normal_male() -> list[int]:
    return [*(k for k in range(22) for _ in range(2)), 22, 23]


def test_boxes_return_to_the_pixels_of_the_image() -> None:
    detector = FixedDetector(grid(46), normal_male())
    cell = Predictor(Detector(detector, PLAIN)).cell(np.full((100, 200), 240, dtype=np.uint8))
    assert detector.seen[0].shape == (200, 400)  # zoomed twice
    assert cell.karyotype == cell.karyotype_by_box == "46,XY"
    # By class, so the first two are chromosomes 1, where the detector saw them, at half the size.
    assert [c.box for c in cell.chromosomes[:2]] == [(0, 5, 3, 15), (4, 5, 7, 15)]
    assert [c.name for c in cell.chromosomes[-2:]] == ["X", "Y"]
    assert (cell.width, cell.height) == (200, 100)
    assert cell.view["zoom"] == 2
    np.testing.assert_array_equal(cell.counts(), [2] * 22 + [1, 1])


def test_an_extra_chromosome_is_reported() -> None:
    detector = FixedDetector(grid(47), [*normal_male(), 20])
    cell = Predictor(Detector(detector, PLAIN)).cell(np.full((100, 200), 240, dtype=np.uint8))
    assert cell.karyotype == cell.karyotype_by_box == "47,XY,+21"
    assert "abnormal" in cell.flags


def test_settings_reach_the_karyotype() -> None:
    labels = [k if k != 5 else 6 for k in normal_male()]  # both 6 called 7
    detector = FixedDetector(grid(46), labels)
    detector.raw[1][[n for n, k in enumerate(normal_male()) if k == 5], 5] = 0.9
    free = Predictor(Detector(detector, PLAIN), KaryotypeSettings(prior_strength=0.0))
    image = np.full((100, 200), 240, dtype=np.uint8)
    assert free.cell(image).karyotype == "46,XY,-6,-6,+7,+7"
    strong = Predictor(Detector(detector, PLAIN), KaryotypeSettings(prior_strength=1.0))
    cell = strong.cell(image)
    assert (cell.karyotype, cell.karyotype_by_box) == ("46,XY", "46,XY,-6,-6,+7,+7")
    assert sum("reassigned" in c.flags for c in cell.chromosomes) == 2
    assert strong.settings()["karyotype"]["prior_strength"] == 1.0


def test_a_cell_that_cannot_be_karyotyped_has_a_draft_and_a_reason() -> None:
    image = np.full((100, 200), 240, dtype=np.uint8)
    cell = Predictor(Detector(FixedDetector(grid(28), normal_male()[:28]), PLAIN)).cell(image)
    assert (cell.status, cell.unfit) == ("unfit", True)
    assert cell.reasons == ("only 28 chromosomes were found, fewer than 35",)
    assert (cell.karyotype, cell.karyotype_by_box) == ("", "")
    assert cell.draft.startswith("28<1n>,?,+1,")
    other = ViewSettings(
        normalize=False, tone=False, max_size=400, fit_size=400, chromosome_size=30.0
    )
    cell = Predictor(Detector(FixedDetector(grid(46), normal_male()), other)).cell(image)
    assert cell.reasons == ("the network saw chromosomes 2.7 times smaller than in training",)
    assert cell.draft == "46,XY"
    sought = ViewSettings(tone=False, max_size=400, fit_size=400, chromosome_size=11.0)
    cell = Predictor(Detector(FixedDetector(grid(46), normal_male()), sought)).cell(image)
    assert cell.reasons == ("no spread was found in the picture",)


def test_unidentified_chromosomes_come_after_the_others() -> None:
    detector = FixedDetector(grid(47), [*normal_male(), 20])
    detector.raw[1][0] = [0.9 / 24] * 24 + [0.1]
    detector.raw[1][2] = [*[0.02 / 24] * 24, 0.98]
    image = np.full((100, 200), 240, dtype=np.uint8)
    cell = Predictor(Detector(detector, PLAIN)).cell(image)
    assert [c.assigned for c in cell.chromosomes[-2:]] == [23, UNIDENTIFIED]
    assert len(cell.counted) == 46
    assert cell.counts().sum() == 45
    assert cell.karyotype == "46,XY,-1,-2,+21,inc"


def test_nothing_is_a_result() -> None:
    cell = Predictor(Detector(FixedDetector([], []), PLAIN)).cell(np.zeros((9, 9), dtype=np.uint8))
    assert (cell.karyotype, cell.chromosomes, cell.confidence) == ("", [], 0.0)
    assert cell.counts().sum() == 0


def save(tmp_path: Path, content: dict[str, Any], **more: Any) -> Path:
    path = tmp_path / "model.ckpt"
    torch.save({**content, **more}, path)
    return path


def test_a_checkpoint_brings_its_settings(tmp_path: Path, make_content: MakeContent) -> None:
    path = save(
        tmp_path,
        make_content(),
        karyotype={"temperature": 1.7},
        selection={"min_foreground": 0.25},
        card={"name": "mine 2"},
    )
    predictor = load_predictor(path, prior_strength=0)
    assert predictor.karyotype == KaryotypeSettings(temperature=1.7, prior_strength=0)
    assert predictor.detector.selection.min_foreground == 0.25
    assert load_predictor(path, min_foreground=0.75).detector.selection.min_foreground == 0.75
    assert (predictor.detector.view.chromosome_size, predictor.detector.view.tone) == (48, True)
    assert predictor.name == "mine 2"


def test_predict_is_the_same_from_files_and_arrays(
    tmp_path: Path, make_content: MakeContent
) -> None:
    path = save(tmp_path, make_content(), selection={"min_foreground": 0.0})
    image = np.full((150, 220), 230, dtype=np.uint8)
    cv2.ellipse(image, (60, 60), (30, 8), 20, 0, 360, 90, -1)
    cv2.ellipse(image, (150, 90), (20, 7), 80, 0, 360, 110, -1)
    (tmp_path / "slides").mkdir()
    for name in ("b", "a"):
        cv2.imwrite(str(tmp_path / "slides" / f"{name}.png"), image)
    cells = deepacc_d2.predict(tmp_path / "slides", checkpoint=path, cases="folder")
    assert [(c.name, c.case_id) for c in cells] == [("a", "slides"), ("b", "slides")]
    predictor = load_predictor(path)
    (array,) = deepacc_d2.predict(image, checkpoint=predictor)
    color = np.repeat(image[..., None], 3, axis=2)
    found = [*cells, array, *deepacc_d2.predict([color, image], checkpoint=predictor)]
    assert array.chromosomes
    for cell in found:
        assert [c.box for c in cell.chromosomes] == [c.box for c in array.chromosomes]
        assert (cell.karyotype, cell.confidence) == (array.karyotype, array.confidence)
        assert all(c.assigned in (LEFT_OUT, UNIDENTIFIED, *range(24)) for c in cell.chromosomes)


def test_bad_input(tmp_path: Path, make_content: MakeContent) -> None:
    with pytest.raises(DataError, match=r"nowhere\.ckpt does not exist"):
        load_predictor("nowhere.ckpt")
    path = save(tmp_path, make_content())
    with pytest.raises(ConfigError, match="precision=8: choose"):
        load_predictor(path, precision="8")
    with pytest.raises(ConfigError, match="device=toaster is unknown"):
        load_predictor(path, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="asks for a GPU that torch does not find"):
            load_predictor(path, device="cuda:1")
    path = save(tmp_path, make_content(), selection={"wings": 2})
    with pytest.raises(DataError, match="selection settings of another version"):
        load_predictor(path)
    image = np.zeros((40, 40), dtype=np.uint8)
    with pytest.raises(ConfigError, match="mixes arrays and paths"):
        deepacc_d2.predict([image, "a.png"], checkpoint=path)


AUGMENTATIONS = ("deepacc_config", "scale", "test_augmentations")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("model",), None),
        (("model",), [1]),
        (("model", "pixel_mean"), "white"),
        (("model", "more"), torch.zeros(1)),
        (("model", "pixel_mean"), torch.zeros(1, 1, 1, dtype=torch.complex64)),
        (("deepacc_config",), "siamese_gia"),
        (("deepacc_config", "model"), "a detector"),
        (("deepacc_config", "model"), 3),
        (("deepacc_config", "scale"), None),
        (("deepacc_config", "model", "backbone", "out_channels"), 10**9),
        (AUGMENTATIONS, None),
        (AUGMENTATIONS, ["a", 3]),
        (AUGMENTATIONS, [{"_target_": "x.ResizeToChromosomes", "chromosome_size": "large"}]),
        (AUGMENTATIONS, [{"_target_": "x.ResizeToChromosomes", "chromosome_size": 0}]),
        (("selection",), 5),
        (("selection",), {"iou": "half"}),
        (("karyotype",), [1]),
        (("karyotype",), {"temperature": "warm"}),
        (("card",), "a detector"),
    ],
)
def test_a_file_of_anything_is_refused_in_one_line(
    tmp_path: Path, make_content: MakeContent, where: tuple[str, ...], value: Any
) -> None:
    content = make_content()
    node = content
    for key in where[:-1]:
        node = node[key]
    node[where[-1]] = value
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises((DataError, ConfigError)) as error:
        load_predictor(tmp_path / "odd.ckpt", device="cpu")
    assert "\n" not in str(error.value)


def test_a_config_of_a_nest_without_end(tmp_path: Path, make_content: MakeContent) -> None:
    content = make_content()
    node: dict[str, Any] = {}
    for _ in range(1500):
        node = {"x": node}
    content["deepacc_config"]["model"] = node
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    torch.save(content, tmp_path / "deep.ckpt")
    sys.setrecursionlimit(limit)
    with pytest.raises(DataError, match=r"deep\.ckpt"):
        load_predictor(tmp_path / "deep.ckpt", device="cpu")
