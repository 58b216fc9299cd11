"""From a dataset dict to the network's input: decode, augment, pack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances

from deepacc_d2.errors import DataError
from deepacc_d2.images.read import read_gray


class MetaphaseMapper:
    """Maps a dataset dict (see :func:`deepacc_d2.data.dataset.to_dicts`) to a network input.

    The output has ``image``, a uint8 tensor (1, H', W') that the model normalizes on its device,
    ``image_id``, ``file_name``, ``height`` and ``width`` of the original, and, in training,
    ``instances`` with ``gt_boxes`` and ``gt_classes``. Boxes that augmentation leaves with a side
    under one pixel are dropped.
    """

    def __init__(self, augmentations: Sequence[T.Augmentation], *, is_train: bool) -> None:
        self.augmentations = T.AugmentationList(list(augmentations))
        self.is_train = is_train

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Decodes and augments one image. Its boxes are on it as shown, EXIF orientation applied.

        Raises:
            DataError: the image cannot be read, or its size is not the annotated one.
        """
        try:
            image = read_gray(item["file_name"])
        except DataError as error:
            raise DataError(f"{error}; `make data-check` lists all that are bad") from None
        if image.shape != (item["height"], item["width"]):
            raise DataError(
                f"image {item['file_name']} is {image.shape[1]}x{image.shape[0]} but annotated as "
                f"{item['width']}x{item['height']}: run `make data-check` on its data set"
            )
        inputs = T.AugInput(image, boxes=item["boxes"])
        if self.is_train:
            # For augmentations that know what a class looks like.
            inputs.classes = item["classes"]
        self.augmentations(inputs)
        # A flip is a negative stride, which torch cannot share; nor can it share what is read-only.
        pixels = np.require(inputs.image, requirements=["C", "W"])
        output = {
            "image": torch.from_numpy(pixels)[None],
            "image_id": item["image_id"],
            "file_name": item["file_name"],
            "height": item["height"],
            "width": item["width"],
        }
        if self.is_train:
            instances = Instances(pixels.shape)
            boxes = Boxes(torch.from_numpy(np.asarray(inputs.boxes, dtype=np.float32)))
            boxes.clip(pixels.shape)
            instances.gt_boxes = boxes
            instances.gt_classes = torch.from_numpy(item["classes"])
            output["instances"] = instances[boxes.nonempty(threshold=1.0)]
        return output
