from __future__ import annotations

from pathlib import Path

import numpy as np

from deepacc_d2.data.synthetic import SyntheticConfig, ensure_dataset
from deepacc_d2.detection.export.calibration_images import Split, drawn


def test_drawn_images_are_the_same_every_time() -> None:
    once, again = drawn(2), drawn(2)
    assert [s.shape for s in once] == [s.shape for s in again]
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    assert once[0].dtype == np.uint8
    assert (once[0].shape != once[1].shape) or (once[0] != once[1]).any()


def test_a_split_is_read_evenly(tmp_path: Path) -> None:
    config = SyntheticConfig(size=(208, 200), cells_per_case=1, num_batches=2, seed=3)
    ensure_dataset(
        tmp_path / "d", config, {"train": 1, "val": 5, "test": 1}, num_workers=1, progress=False
    )
    split = Split(tmp_path / "d", "val")
    assert len(split) == len([*split]) == 5
    assert split.take(None) is split.take(9) is split
    part = split.take(3)
    kept = [image["id"] for image in part.coco["images"]]
    assert kept == [split.coco["images"][i]["id"] for i in (0, 2, 4)]
    assert {a["image_id"] for a in part.coco["annotations"]} == set(kept)
    sizes = [(image["height"], image["width"]) for image in part.coco["images"]]
    assert [gray.shape for gray in part] == sizes
