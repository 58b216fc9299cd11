"""Feature maps and proposals of a frozen trunk on disk, memory-mapped.

One cache holds one split. Its records are the images in each of their views (flipped copies), image
by image. Every record has a fixed place from the start, so that writing can stop and go on.

Shapes: R records, C channels, H x W cells of a level, P proposals at most, G boxes at most.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.files import write_json

VIEWS: dict[str, tuple[bool, bool]] = {
    "none": (False, False),
    "horizontal": (True, False),
    "vertical": (False, True),
    "both": (True, True),
}
"""By name of a view, whether it is flipped horizontally and vertically."""

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class CacheLayout:
    """What a cache holds and where.

    Attributes:
        images: one dict an image: ``image_id``, ``file_name``, ``height`` and ``width`` of the
            original, ``input_height`` and ``input_width`` of the network's input.
        views: names out of :data:`VIEWS`.
        strides: by name of a pyramid level, pixels of the input a cell.
        channels: C.
        divisor: the input is padded at the right and bottom to a multiple of it.
        max_proposals: P.
        max_boxes: G.
        dtype: ``bfloat16`` or ``float32``, as the trunk computed.
        origin: what made the content (trunk, data set, ...); two caches of one origin are equal.
    """

    images: list[dict[str, Any]]
    views: list[str]
    strides: dict[str, int]
    channels: int
    divisor: int
    max_proposals: int
    max_boxes: int
    dtype: str
    origin: dict[str, Any]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.views) - set(VIEWS))
        if unknown or not self.views:
            raise ConfigError(f"heads.views={self.views}: choose from {', '.join(VIEWS)}")

    def __len__(self) -> int:
        return len(self.images) * len(self.views)

    def cells(self, image: Mapping[str, Any], level: str) -> tuple[int, int]:
        """Returns (H, W) of a level's map of an image."""
        return (
            -(-image["input_height"] // self.divisor) * self.divisor // self.strides[level],
            -(-image["input_width"] // self.divisor) * self.divisor // self.strides[level],
        )

    def numbers(self, image: Mapping[str, Any]) -> int:
        """Returns how many numbers an image's maps have in one view."""
        return self.channels * sum(int(np.prod(self.cells(image, k))) for k in self.strides)

    def numbers_of_all(self) -> int:
        """Returns how many numbers the maps of all records have."""
        return len(self.views) * sum(self.numbers(image) for image in self.images)


def _reserve(path: Path) -> None:
    """Takes a sparse file's space now: a full disk would kill a process that writes to its map."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


class FeatureCache:
    """The cache of one split.

    Args:
        folder: where it lies; made if missing.
        layout: what it shall hold; null to open one as it is.

    Raises:
        DataError: the folder holds no cache, or a damaged one.
        ConfigError: the folder holds a cache of another layout or origin.
    """

    def __init__(self, folder: str | Path, layout: CacheLayout | None = None) -> None:
        self.folder = Path(folder)
        path = self.folder / "layout.json"
        exists = path.is_file()
        if layout is None and not exists:
            raise DataError(f"{self.folder} holds no feature cache: build it again")
        if exists:
            try:
                found = CacheLayout(**json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path} is damaged: remove {self.folder}") from error
            if layout is not None and found != layout:
                names = [k for k, v in asdict(layout).items() if v != getattr(found, k)]
                raise ConfigError(
                    f"{self.folder} caches the features of another run ({', '.join(names)} differ):"
                    " choose another OUT, or remove it"
                )
            layout = found
        assert layout is not None
        self.layout = layout
        numbers = np.array([layout.numbers(i) for i in layout.images], dtype=np.int64)
        ends = np.cumsum(np.repeat(numbers, len(layout.views)))
        self._starts = np.concatenate([[0], ends])
        if not exists:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._open(create=not exists)
        if not exists:
            # Last, so that a layout says that the files beside it are whole.
            write_json(path, asdict(layout), indent=None)

    def _open(self, *, create: bool) -> None:
        records, p, g = len(self.layout), self.layout.max_proposals, self.layout.max_boxes
        # NumPy has no bfloat16: its bits pass as int16.
        kind = np.int16 if self.layout.dtype == "bfloat16" else np.float32
        arrays: dict[str, tuple[type, tuple[int, ...]]] = {
            "maps": (kind, (int(self._starts[-1]),)),
            "proposals": (np.float32, (records, p, 4)),
            "objectness": (np.float32, (records, p)),
            "boxes": (np.float32, (records, g, 4)),
            "classes": (np.int64, (records, g)),
            "counts": (np.int64, (records, 2)),
            "done": (np.bool_, (records,)),
        }
        self._arrays: dict[str, np.memmap] = {}
        for name, (dtype, shape) in arrays.items():
            path = self.folder / f"{name}.npy"
            try:
                if create:
                    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
                    _reserve(path)
                else:
                    array = np.lib.format.open_memmap(path, mode="r+")
            except (OSError, ValueError) as error:
                if create:
                    for made in arrays:
                        (self.folder / f"{made}.npy").unlink(missing_ok=True)
                    needed = self.layout.numbers_of_all() * np.dtype(kind).itemsize / 1e9
                    raise DataError(
                        f"{path} cannot be made ({error.args[-1]}): {needed:.1f} GB are needed; "
                        "free space, choose another OUT or fewer heads.views"
                    ) from error
                raise DataError(
                    f"{path} cannot be read ({error}): remove {self.folder}, it will be made again"
                ) from error
            if array.shape != shape or array.dtype != dtype:
                raise DataError(f"{path} does not fit its layout: remove {self.folder}")
            self._arrays[name] = array

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def nbytes(self) -> int:
        """Returns the size of all files in bytes."""
        return sum(array.nbytes for array in self._arrays.values())

    def missing_images(self) -> list[int]:
        """Returns the indices of images of which some view was not written yet."""
        done = np.asarray(self._arrays["done"]).reshape(-1, len(self.layout.views))
        return np.flatnonzero(~done.all(axis=1)).tolist()

    def write(
        self,
        record: int,
        maps: Mapping[str, Tensor],
        proposals: Instances,
        instances: Instances | None = None,
    ) -> None:
        """Writes one record.

        Args:
            record: image index times the number of views, plus the view's index.
            maps: (C, H, W) by level.
            proposals: with ``proposal_boxes`` and ``objectness_logits``.
            instances: ground truth in this view, in pixels of the input; null for none.
        """
        dtype = DTYPES[self.layout.dtype]
        flat = [maps[k].permute(1, 2, 0).reshape(-1).to(dtype) for k in self.layout.strides]
        values = torch.cat(flat).contiguous()
        if dtype == torch.bfloat16:
            values = values.view(torch.int16)
        start, end = self._starts[record : record + 2]
        self._arrays["maps"][start:end] = values.numpy()
        n, g = len(proposals), 0 if instances is None else len(instances)
        self._arrays["proposals"][record, :n] = proposals.proposal_boxes.tensor.float().numpy()
        self._arrays["objectness"][record, :n] = proposals.objectness_logits.float().numpy()
        if instances is not None:
            self._arrays["boxes"][record, :g] = instances.gt_boxes.tensor.numpy()
            self._arrays["classes"][record, :g] = instances.gt_classes.numpy()
        self._arrays["counts"][record] = n, g
        self._arrays["done"][record] = True

    def flush(self) -> None:
        """Hands everything written to the disk."""
        for array in self._arrays.values():
            array.flush()

    def read(self, record: int) -> dict[str, Any]:
        """Reads one record as an input of :class:`deepacc_d2.modeling.cached.CachedRCNN`.

        Raises:
            DataError: it was not written yet.
        """
        if not self._arrays["done"][record]:
            raise DataError(f"{self.folder} is not complete: build it again to go on")
        image = self.layout.images[record // len(self.layout.views)]
        size = (image["input_height"], image["input_width"])
        dtype = DTYPES[self.layout.dtype]
        start = int(self._starts[record])
        maps = {}
        for level in self.layout.strides:
            shape = (*self.layout.cells(image, level), self.layout.channels)
            end = start + int(np.prod(shape))
            # Copied: the map file is opened writable, and a tensor must not write to it.
            values = torch.from_numpy(np.array(self._arrays["maps"][start:end]))
            maps[level] = values.view(dtype).view(shape).permute(2, 0, 1)
            start = end
        n, g = self._arrays["counts"][record]
        proposals, instances = Instances(size), Instances(size)
        proposals.proposal_boxes = Boxes(torch.tensor(self._arrays["proposals"][record, :n]))
        proposals.objectness_logits = torch.tensor(self._arrays["objectness"][record, :n])
        instances.gt_boxes = Boxes(torch.tensor(self._arrays["boxes"][record, :g]))
        instances.gt_classes = torch.tensor(self._arrays["classes"][record, :g])
        about = {k: image[k] for k in ("image_id", "file_name", "height", "width")}
        return {**about, "maps": maps, "proposals": proposals, "instances": instances}


class CachedDataset(torch.utils.data.Dataset):
    """The records of a cache as a map-style data set.

    Args:
        cache: a complete cache.
        records: which of them; null for all.
    """

    def __init__(self, cache: FeatureCache, records: Sequence[int] | None = None) -> None:
        self.cache = cache
        self.records = range(len(cache)) if records is None else list(records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.cache.read(self.records[index])
