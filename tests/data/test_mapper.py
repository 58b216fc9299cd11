from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image

from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_gray, read_image
from deepacc_d2.images.transforms import ResizeToFit

HEIGHT, WIDTH = 48, 64


def _write(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


@pytest.fixture
def item(tmp_path: Path, pixels: np.ndarray) -> dict[str, Any]:
    return {
        "file_name": str(_write(tmp_path / "cell.png", pixels)),
        "image_id": 7,
        "height": HEIGHT,
        "width": WIDTH,
        "case_id": "c",
        "batch_id": None,
        "boxes": np.array([[2, 3, 22, 13], [40, 5, 60, 25]], dtype=np.float32),
        "classes": np.array([0, 22], dtype=np.int64),
    }


class _Crop(T.Augmentation):
    def get_transform(self, image: np.ndarray) -> T.Transform:
        return T.CropTransform(0, 0, 40, 30, WIDTH, HEIGHT)


class _Seen(T.Augmentation):
    def __init__(self) -> None:
        self.classes: list[Any] = []

    def __call__(self, aug_input: T.AugInput) -> T.Transform:
        self.classes.append(getattr(aug_input, "classes", None))
        return T.NoOpTransform()


def test_augmentations_of_training_know_the_classes(item: dict[str, Any]) -> None:
    seen = _Seen()
    MetaphaseMapper([seen], is_train=True)(item)
    MetaphaseMapper([seen], is_train=False)(item)
    np.testing.assert_array_equal(seen.classes[0], [0, 22])
    assert seen.classes[1] is None


def test_training_item(item: dict[str, Any], pixels: np.ndarray) -> None:
    output = MetaphaseMapper([], is_train=True)(item)
    assert output["image"].dtype == torch.uint8
    assert output["image"].shape == (1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(output["image"][0].numpy(), pixels)
    assert {k: output[k] for k in ("image_id", "height", "width", "file_name")} == {
        k: item[k] for k in ("image_id", "height", "width", "file_name")
    }
    instances = output["instances"]
    assert instances.image_size == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(instances.gt_boxes.tensor.numpy(), item["boxes"])
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_classes.tolist() == [0, 22]


def test_test_item_has_no_ground_truth_and_the_original_size(item: dict[str, Any]) -> None:
    output = MetaphaseMapper([ResizeToFit(128)], is_train=False)(item)
    assert "instances" not in output
    assert output["image"].shape == (1, 96, 128)
    assert (output["height"], output["width"]) == (HEIGHT, WIDTH)


def test_flipped_image_is_contiguous_and_its_boxes_mirrored(
    item: dict[str, Any], pixels: np.ndarray
) -> None:
    flip = T.RandomFlip(prob=1.0, horizontal=True, vertical=False)
    output = MetaphaseMapper([flip], is_train=True)(item)
    assert output["image"].is_contiguous()
    np.testing.assert_array_equal(output["image"][0].numpy(), pixels[:, ::-1])
    expected = [[WIDTH - 22, 3, WIDTH - 2, 13], [WIDTH - 60, 5, WIDTH - 40, 25]]
    assert output["instances"].gt_boxes.tensor.tolist() == expected


def test_boxes_are_clipped_and_those_that_vanish_dropped(item: dict[str, Any]) -> None:
    item["boxes"] = np.array(
        [
            [10, 10, 60, 20],  # cut at x = 40
            [45, 5, 60, 25],  # outside
            [39.5, 5, 60, 25],  # half a pixel is left
            [38, 5, 60, 25],  # two pixels are left
        ],
        dtype=np.float32,
    )
    item["classes"] = np.array([1, 2, 3, 4])
    instances = MetaphaseMapper([_Crop()], is_train=True)(item)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[10, 10, 40, 20], [38, 5, 40, 25]]
    assert instances.gt_classes.tolist() == [1, 4]


def test_image_without_objects(item: dict[str, Any]) -> None:
    item["boxes"] = np.zeros((0, 4), dtype=np.float32)
    item["classes"] = np.zeros(0, dtype=np.int64)
    augmentations = [ResizeToFit(128), T.RandomFlip(prob=1.0)]
    instances = MetaphaseMapper(augmentations, is_train=True)(item)["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)


def test_the_dataset_dict_is_not_changed(item: dict[str, Any]) -> None:
    before = copy.deepcopy(item)
    augmentations = [T.RandomFlip(prob=1.0), _Crop()]
    output = MetaphaseMapper(augmentations, is_train=True)(item)
    output["instances"].gt_boxes.tensor += 100
    output["instances"].gt_classes += 100
    plain = MetaphaseMapper([], is_train=True)(item)
    plain["instances"].gt_boxes.tensor += 100
    plain["instances"].gt_classes += 100
    np.testing.assert_array_equal(item["boxes"], before["boxes"])
    np.testing.assert_array_equal(item["classes"], before["classes"])


def test_color_jpeg_is_read_as_its_luma(tmp_path: Path, pixels: np.ndarray) -> None:
    smooth = cv2.GaussianBlur(pixels, (0, 0), 3)
    path = _write(tmp_path / "rgb.jpg", cv2.merge([smooth] * 3))
    gray = read_gray(path)
    assert gray.dtype == np.uint8
    color = cv2.imread(str(path), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(gray.astype(int), color.mean(axis=2), atol=2)


def _cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, r"cell\.png cannot be read \(No such file"),
        (lambda path: path.write_bytes(b""), r"image .*cell\.png is empty \(0 bytes\)"),
        (lambda path: path.write_text("<html>404</html>"), r"cell\.png is no JPEG"),
        (_cut_in_half, r"cell\.png is truncated or damaged"),
    ],
)
def test_a_bad_image_is_named_with_the_fix(
    item: dict[str, Any], damage: Callable[[Path], object], said: str
) -> None:
    damage(Path(item["file_name"]))
    with pytest.raises(DataError, match=said + ".*data-check") as error:
        MetaphaseMapper([], is_train=True)(item)
    assert "\n" not in str(error.value)


def _twelve_bit(path: Path, pixels: np.ndarray) -> None:
    # A camera's 12 bits in the lower part of 16, as they come: their upper bytes are 0 to 15.
    Image.fromarray(pixels.astype(np.uint16) * 14 + 300).save(path)


def _empty_alpha(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(np.dstack([pixels] * 3 + [np.zeros_like(pixels)])).save(path)


def _clear_background(path: Path, pixels: np.ndarray) -> None:
    alpha = np.where(pixels > 200, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([np.where(alpha == 0, 0, pixels)] * 3 + [alpha])).save(path)


@pytest.mark.parametrize("write", [_twelve_bit, _empty_alpha, _clear_background])
def test_training_sees_the_gray_levels_that_prediction_sees(
    tmp_path: Path, item: dict[str, Any], pixels: np.ndarray, write: Callable[..., None]
) -> None:
    path = tmp_path / "cell.tif"
    write(path, pixels)
    seen = MetaphaseMapper([], is_train=True)({**item, "file_name": str(path)})["image"][0].numpy()
    np.testing.assert_array_equal(seen, read_image(path).gray)
    expected = np.where(pixels > 200, 255, pixels) if write is _clear_background else pixels
    # In proportion to what was written, in as many levels.
    assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > 0.9999
    assert len(np.unique(seen)) > 190


def test_size_that_differs_from_the_annotation(item: dict[str, Any]) -> None:
    item["height"], item["width"] = WIDTH, HEIGHT
    with pytest.raises(DataError, match=r"is 64x48 but annotated as 48x64.*data-check"):
        MetaphaseMapper([], is_train=True)(item)
