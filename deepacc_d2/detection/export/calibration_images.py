"""Images to check and to calibrate an export on, as the network is shown them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import transforms as T

from deepacc_d2.checkpoint import build, check_trusted
from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.images.gray import Gray
from deepacc_d2.images.read import read_gray

AUGMENTATIONS = ("deepacc_d2.images.transforms.", "detectron2.data.transforms.")


class Shown(NamedTuple):
    """An image as the network is shown it.

    Attributes:
        image: uint8 (H, W).
        across, down: pixels of the file for one of the image, horizontally and vertically.
    """

    image: Gray
    across: float = 1.0
    down: float = 1.0


class Split:
    """Images of a data set's split, read when they are asked for."""

    def __init__(self, root: str | Path, split: str, nodes: Sequence[dict[str, Any]]) -> None:
        """Reads the split's annotations.

        Args:
            root: of a data set in the internal format.
            split: ``train``, ``val`` or ``test``.
            nodes: a checkpoint's ``test_augmentations``.

        Raises:
            DataError: the data set is missing or broken.
            ConfigError: the nodes would call something other than augmentations.
        """
        self.coco = read_split(root, split)
        self._files = [item["file_name"] for item in to_dicts(self.coco, root)]
        self._augmentations = augmentations(nodes)

    def __len__(self) -> int:
        return len(self._files)

    def take(self, count: int | None) -> Split:
        """Returns the split with that many of its images, evenly spread; None for all."""
        if count is None or count >= len(self):
            return self
        rows = np.linspace(0, len(self) - 1, max(count, 1)).round().astype(int).tolist()
        part = object.__new__(Split)
        images = [self.coco["images"][row] for row in rows]
        ids = {image["id"] for image in images}
        objects = [a for a in self.coco["annotations"] if a["image_id"] in ids]
        part.coco = {**self.coco, "images": images, "annotations": objects}
        part._files = [self._files[row] for row in rows]
        part._augmentations = self._augmentations
        return part

    def __iter__(self) -> Iterator[Shown]:
        for file in self._files:
            yield show(read_gray(file), self._augmentations)


def augmentations(nodes: Sequence[dict[str, Any]]) -> list[T.Augmentation]:
    """Builds the augmentations that a checkpoint was tested with.

    Raises:
        ConfigError: a node would call something else.
    """
    listed = list(nodes)
    check_trusted(listed, extra=AUGMENTATIONS)
    built: list[T.Augmentation] = build(listed)
    return built


def show(gray: Gray, steps: Sequence[T.Augmentation]) -> Shown:
    """Returns an image (H, W) as augmentations leave it."""
    shown = T.AugInput(gray)
    T.AugmentationList(list(steps))(shown)
    image = np.ascontiguousarray(shown.image)
    return Shown(image, gray.shape[1] / image.shape[1], gray.shape[0] / image.shape[0])


def drawn(count: int, nodes: Sequence[dict[str, Any]]) -> list[Shown]:
    """Draws synthetic metaphases of several sizes, the same ones every time.

    Args:
        count: how many.
        nodes: a checkpoint's ``test_augmentations``.

    Raises:
        ConfigError: see :func:`augmentations`.
    """
    steps = augmentations(nodes)
    config = SyntheticConfig(cells_per_case=1)
    return [show(render_metaphase(config, case, 0)[0], steps) for case in range(count)]
