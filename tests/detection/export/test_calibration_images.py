from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset
from deepacc_d2.detection.export.calibration_images import Split, augmentations, drawn, show
from deepacc_d2.errors import ConfigError

FIT = [{"_target_": "deepacc_d2.images.transforms.ResizeToFit", "max_size": 64}]


def test_show_knows_the_way_back() -> None:
    image, across, down = show(np.zeros((100, 200), dtype=np.uint8), augmentations(FIT))
    assert image.shape == (32, 64)
    assert (across, down) == (200 / 64, 100 / 32)


def test_only_augmentations_are_built() -> None:
    with pytest.raises(ConfigError, match=r"wants to call 'os\.system'"):
        augmentations([{"_target_": "os.system", "command": "true"}])


def test_drawn_images_are_the_same_every_time() -> None:
    once, again = drawn(2, FIT), drawn(2, FIT)
    assert [s.image.shape for s in once] == [s.image.shape for s in again]
    assert all((a.image == b.image).all() for a, b in zip(once, again, strict=True))
    assert once[0].image.dtype == np.uint8
    assert (once[0].image.shape != once[1].image.shape) or (once[0].image != once[1].image).any()


def test_a_split_is_read_evenly(tmp_path: Path) -> None:
    config = SyntheticConfig(size=(208, 200), cells_per_case=1, num_batches=2, seed=3)
    ensure_dataset(
        tmp_path / "d", config, {"train": 1, "val": 5, "test": 1}, num_workers=1, progress=False
    )
    split = Split(tmp_path / "d", "val", FIT)
    assert len(split) == len([*split]) == 5
    assert split.take(None) is split.take(9) is split
    part = split.take(3)
    kept = [image["id"] for image in part.coco["images"]]
    assert kept == [split.coco["images"][i]["id"] for i in (0, 2, 4)]
    assert {a["image_id"] for a in part.coco["annotations"]} == set(kept)
    assert all(max(s.image.shape) == 64 for s in part)
