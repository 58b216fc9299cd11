from __future__ import annotations

from collections import Counter

import pytest
from hydra.utils import instantiate

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.training.heads_protocol import ViewSampler, heads_of


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


def test_a_detector_without_roi_heads_is_refused() -> None:
    overrides = ["experiment=retinanet", "pixel_mean=1", "pixel_std=1"]
    model = instantiate(compose_config("train", overrides).model)
    with pytest.raises(ConfigError, match="has no ROI heads"):
        heads_of(model)
