from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepacc_d2.data.union import DataSets
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.transforms import ResizeToFit
from deepacc_lightning.training.datamodule import ChromosomeDataModule, ContiguousSampler, thin


def make(root: Path, rank: int = 0, world_size: int = 1, **options) -> ChromosomeDataModule:
    augmentations = [ResizeToFit(64)]
    module = ChromosomeDataModule(
        root=root, train_augmentations=augmentations, test_augmentations=augmentations, **options
    )
    module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    return module


def ids(loader) -> list[int]:
    return [item["image_id"] for batch in loader for item in batch]


def test_an_epoch_sees_each_training_image_once_over_all_ranks(tiny_data: Path) -> None:
    single = ids(make(tiny_data, batch_size=1).train_dataloader())
    both = [ids(make(tiny_data, rank=r, world_size=2).train_dataloader()) for r in (0, 1)]
    assert len(single) == len(set(single)) == 6
    assert sorted(both[0] + both[1]) == sorted(single)


def test_order_follows_the_seed_and_the_epoch(tiny_data: Path) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        loader = make(tiny_data, seed=seed).train_dataloader()
        loader.sampler.set_epoch(epoch)
        return ids(loader)

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(s, e)) for s in (1, 2) for e in (0, 1)}) > 1


@pytest.mark.parametrize(("size", "world_size"), [(7, 2), (3, 4), (8, 4), (1, 1), (0, 2)])
def test_each_evaluation_image_is_counted_once(size: int, world_size: int) -> None:
    shares = [
        list(ContiguousSampler(size, rank=r, world_size=world_size)) for r in range(world_size)
    ]
    assert [i for share in shares for i in share] == list(range(size))
    assert [
        len(ContiguousSampler(size, rank=r, world_size=world_size)) for r in range(world_size)
    ] == [len(share) for share in shares]


def test_workers_load_the_same_as_the_process_itself(tiny_data: Path) -> None:
    alone = list(make(tiny_data, num_workers=0).test_dataloader())
    worker = list(make(tiny_data, num_workers=1).test_dataloader())
    for a, b in zip(alone, worker, strict=True):
        assert a[0]["image_id"] == b[0]["image_id"]
        assert (a[0]["image"] == b[0]["image"]).all()


def test_thin_keeps_annotations_with_their_images() -> None:
    coco = {
        "images": [{"id": i} for i in range(10)],
        "annotations": [{"image_id": i % 10, "id": i} for i in range(30)],
    }
    few = thin(coco, 4)
    assert [i["id"] for i in few["images"]] == [0, 2, 5, 7]
    assert {a["image_id"] for a in few["annotations"]} == {0, 2, 5, 7}
    assert len(few["annotations"]) == 12
    assert thin(coco, 10) is coco


def test_training_on_a_part_sees_the_same_images_in_every_epoch(tiny_data: Path) -> None:
    module = make(tiny_data, max_train_images=3)
    loader = module.train_dataloader()
    assert len(set(ids(loader))) == 3
    loader.sampler.set_epoch(1)
    assert set(ids(loader)) == {image["id"] for image in module.coco("train")["images"]}
    assert len(ids(make(tiny_data).train_dataloader())) == 6
    with pytest.raises(ConfigError, match=r"max_train_images and data\.weights"):
        make(DataSets.of(tiny_data, [2]), max_train_images=3)


def test_too_few_images_for_a_batch(tiny_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"6 training images do not fill one batch of 7"):
        make(tiny_data, batch_size=7).train_dataloader()


def test_missing_directory_says_how_to_get_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing does not exist: .*make data .*DATA=synthetic"):
        make(tmp_path / "nothing").info()


def test_missing_split_names_it(tiny_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(tiny_data, root)
    (root / "annotations" / "val.json").unlink()
    with pytest.raises(DataError, match=r"val.json is missing: there is no val split"):
        make(root).setup("fit")


def test_test_split_can_be_chosen(tiny_data: Path) -> None:
    module = make(tiny_data, test_split="val")
    expected = json.loads((tiny_data / "annotations" / "val.json").read_text())["images"]
    assert [i["id"] for i in module.coco("test")["images"]] == [i["id"] for i in expected]
