from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from deepacc_d2.data.feature_cache import CachedDataset, CacheLayout, FeatureCache
from deepacc_d2.errors import ConfigError, DataError

IMAGES = [
    {
        "image_id": 7,
        "file_name": "a.png",
        "height": 60,
        "width": 90,
        "input_height": 33,
        "input_width": 50,
    },
    {
        "image_id": 3,
        "file_name": "b.png",
        "height": 40,
        "width": 40,
        "input_height": 32,
        "input_width": 32,
    },
]
# Padded to a multiple of 16: 48 x 64 and 32 x 32 pixels.
CELLS = [{"p2": (12, 16), "p3": (6, 8)}, {"p2": (8, 8), "p3": (4, 4)}]


def layout(**changes) -> CacheLayout:
    whole = CacheLayout(
        images=IMAGES,
        views=["none", "both"],
        strides={"p2": 4, "p3": 8},
        channels=5,
        divisor=16,
        max_proposals=6,
        max_boxes=3,
        dtype="bfloat16",
        origin={"trunk": "abc"},
    )
    return replace(whole, **changes)


def content(record: int, dtype: torch.dtype = torch.bfloat16):
    generator = torch.Generator().manual_seed(record)
    image = record // 2
    maps = {
        level: torch.randn(5, *cells, generator=generator).to(dtype)
        for level, cells in CELLS[image].items()
    }
    size = (IMAGES[image]["input_height"], IMAGES[image]["input_width"])
    proposals, instances = Instances(size), Instances(size)
    proposals.proposal_boxes = Boxes(torch.rand(record + 2, 4, generator=generator))
    proposals.objectness_logits = torch.rand(record + 2, generator=generator)
    instances.gt_boxes = Boxes(torch.rand(record, 4, generator=generator))
    instances.gt_classes = torch.arange(record) + 3
    return maps, proposals, instances


def fill(cache: FeatureCache, records: list[int], dtype: torch.dtype = torch.bfloat16) -> None:
    for record in records:
        cache.write(record, *content(record, dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_reads_back_what_was_written_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    kind = {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    fill(FeatureCache(tmp_path / "c", layout(dtype=dtype)), [3, 0, 2, 1], kind)
    dataset = CachedDataset(FeatureCache(tmp_path / "c"))
    assert len(dataset) == 4
    for record in range(4):
        found = dataset[record]
        maps, proposals, instances = content(record, kind)
        assert found["maps"].keys() == maps.keys()
        for level, values in maps.items():
            assert found["maps"][level].dtype == kind
            assert torch.equal(found["maps"][level], values)
        image = IMAGES[record // 2]
        assert {k: found[k] for k in ("image_id", "height", "width")} == {
            k: image[k] for k in ("image_id", "height", "width")
        }
        assert found["proposals"].image_size == (image["input_height"], image["input_width"])
        for kind_, expected in (("proposals", proposals), ("instances", instances)):
            for name, value in expected.get_fields().items():
                pair = (found[kind_].get(name), value)
                ours, theirs = (v.tensor if isinstance(v, Boxes) else v for v in pair)
                assert torch.equal(ours, theirs), name


def test_size_on_disk_is_that_of_the_numbers(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "c", layout())
    numbers = 2 * 5 * sum(h * w for cells in CELLS for h, w in cells.values())
    assert np.load(tmp_path / "c" / "maps.npy", mmap_mode="r").size == numbers
    assert cache.nbytes >= 2 * numbers


def test_writing_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "c", layout())
    assert cache.missing_images() == [0, 1]
    fill(cache, [0, 2, 3])
    again = FeatureCache(tmp_path / "c", layout())
    assert again.missing_images() == [0]
    with pytest.raises(DataError, match="is not complete"):
        again.read(1)
    fill(again, [1])
    assert FeatureCache(tmp_path / "c").missing_images() == []


def test_a_cache_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    fill(FeatureCache(tmp_path / "c", layout()), [0])
    before = (tmp_path / "c" / "maps.npy").read_bytes()
    with pytest.raises(ConfigError, match=r"of another run \(origin differ\)"):
        FeatureCache(tmp_path / "c", layout(origin={"trunk": "other"}))
    with pytest.raises(ConfigError, match=r"views"):
        FeatureCache(tmp_path / "c", layout(views=["none"]))
    assert (tmp_path / "c" / "maps.npy").read_bytes() == before


def test_damage_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no feature cache"):
        FeatureCache(tmp_path / "none")
    FeatureCache(tmp_path / "c", layout())
    path = tmp_path / "c" / "proposals.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"proposals\.npy cannot be read"):
        FeatureCache(tmp_path / "c")
    path = tmp_path / "c" / "layout.json"
    path.write_text(json.dumps({"views": []})[:-1])
    with pytest.raises(DataError, match="is damaged"):
        FeatureCache(tmp_path / "c")


def test_unknown_views_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"heads\.views=\['left'\]"):
        layout(views=["left"])


def test_reading_does_not_change_the_file(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "c", layout())
    fill(cache, [0, 1, 2, 3])
    for value in cache.read(0)["maps"].values():
        value.zero_()
    assert torch.equal(cache.read(0)["maps"]["p2"], content(0)[0]["p2"])
