"""Images to check and to calibrate an export on: real ones of a split, or drawn ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.images.gray import Gray
from deepacc_d2.images.read import read_gray


class Split:
    """Images of a data set's split, uint8 (H, W), read when they are asked for."""

    def __init__(self, root: str | Path, split: str) -> None:
        """Reads the split's annotations.

        Args:
            root: of a data set in the internal format.
            split: ``train``, ``val`` or ``test``.

        Raises:
            DataError: the data set is missing or broken.
        """
        self.coco = read_split(root, split)
        self._files = [item["file_name"] for item in to_dicts(self.coco, root)]

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
        return part

    def __iter__(self) -> Iterator[Gray]:
        return (read_gray(file) for file in self._files)


def drawn(count: int) -> list[Gray]:
    """Draws synthetic metaphases of several sizes, the same ones every time."""
    config = SyntheticConfig(cells_per_case=1)
    return [render_metaphase(config, case, 0)[0] for case in range(count)]
