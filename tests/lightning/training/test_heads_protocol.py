from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import pytest
from hydra.utils import instantiate

from deepacc_d2.data.feature_cache import CacheLayout, FeatureCache
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.transforms import ResizeToChromosomes
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.training.datamodule import ChromosomeDataModule
from deepacc_lightning.training.heads_protocol import ViewSampler, heads_of, input_sizes


def test_every_image_once_an_epoch_and_every_view_in_time() -> None:
    sampler = ViewSampler(10, 4, seed=1)
    seen: Counter[int] = Counter()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        records = list(sampler)
        assert sorted(r // 4 for r in records) == list(range(10))
        seen.update(records)
    assert set(seen) == set(range(40))
    # 60 draws out of four views: mean 15, standard deviation 3.4.
    assert max(abs(count - 15) for count in seen.values()) < 14


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ViewSampler(20, 2, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4


def test_inputs_are_measured_where_their_size_depends_on_the_pixels(
    tiny_data: Path, tmp_path: Path
) -> None:
    """As in ``SCALE=lab``, which brings chromosomes to one size."""
    augmentation = ResizeToChromosomes(20, max_size=300)
    datamodule = ChromosomeDataModule(root=tiny_data, test_augmentations=[augmentation])
    dicts = datamodule.data.dicts(datamodule.coco("train"))
    origin = {"trunk": "a"}
    sizes = input_sizes(dicts, [augmentation], tmp_path, origin)
    for item, size in zip(dicts, sizes, strict=True):
        image = cv2.imread(item["file_name"], cv2.IMREAD_GRAYSCALE)
        assert augmentation.get_transform(image).apply_image(image).shape == size
    assert (
        len({height / item["height"] for item, (height, _) in zip(dicts, sizes, strict=True)}) > 1
    )

    images = [
        {**{k: item[k] for k in ("image_id", "height", "width")}, "file_name": "a"}
        | {"input_height": 7, "input_width": 9}
        for item in dicts
    ]
    layout = CacheLayout(
        images=images,
        views=["none"],
        strides={"p2": 4},
        channels=1,
        divisor=16,
        max_proposals=1,
        max_boxes=1,
        dtype="float32",
        origin=origin,
    )
    FeatureCache(tmp_path, layout)
    assert input_sizes(dicts, [augmentation], tmp_path, origin) == [(7, 9)] * len(dicts)
    assert input_sizes(dicts, [augmentation], tmp_path, {"trunk": "b"}) == sizes


def test_a_detector_without_roi_heads_is_refused() -> None:
    overrides = ["experiment=retinanet", "pixel_mean=1", "pixel_std=1"]
    model = instantiate(compose_config("train", overrides).model)
    with pytest.raises(ConfigError, match="has no ROI heads"):
        heads_of(model)
