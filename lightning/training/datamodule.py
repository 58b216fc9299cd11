"""The LightningDataModule over a data directory in the internal format."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import pytorch_lightning as pl
import torch
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.distributed import DistributedSampler

from deepacc_d2.data.dataset import ChromosomeDataset, DatasetInfo
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.data.union import DataSets
from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.worker_loader import WorkerLoader, identity
from deepacc_lightning.training.loading import (
    DrawnDataset,
    DrawSampler,
    EpochDraws,
    ResumableLoader,
)


def init_worker(worker_id: int) -> None:
    """Keeps OpenCV from starting threads of its own in a loader process."""
    cv2.setNumThreads(0)


class ContiguousSampler(Sampler[int]):
    """Gives each rank its own contiguous share, every image exactly once over all ranks.

    Detectron2's ``InferenceSampler`` does the same but asks ``torch.distributed`` through
    Detectron2's process groups; this one takes rank and size as arguments.
    """

    def __init__(self, size: int, *, rank: int, world_size: int) -> None:
        share = math.ceil(size / world_size)
        self.indices = range(min(rank * share, size), min((rank + 1) * share, size))

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class ChromosomeDataModule(pl.LightningDataModule):
    """Loads the splits of a data set.

    Args:
        root: data directory, see docs/DATA.md, or several with their weights.
        train_augmentations: Detectron2 augmentations of training images.
        test_augmentations: of validation and test images.
        batch_size: training images a device and step.
        test_batch_size: images a device and step when evaluating.
        num_workers: loader processes; 0 loads in the training process.
        seed: of the order of training images.
        test_split: the split that ``test`` runs on.
        generate: makes the data set at ``root`` if it is not there (the synthetic set); null for
            a set that must exist.
        max_train_images: trains on that many images only, evenly spaced; null for all.
        max_val_images: evaluates only that many validation images, evenly spaced, during
            training; null for all.
        repeat: gives the first epoch's training batches in every epoch, to overfit them.
        batch_pool: training batches whose images are shared out anew by size, see
            :class:`~deepacc_lightning.training.loading.ResumableLoader`.
    """

    def __init__(
        self,
        *,
        root: str | Path | DataSets,
        train_augmentations: Sequence[T.Augmentation] = (),
        test_augmentations: Sequence[T.Augmentation],
        batch_size: int = 1,
        test_batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        test_split: str = "test",
        generate: Callable[..., Any] | None = None,
        max_train_images: int | None = None,
        max_val_images: int | None = None,
        repeat: bool = False,
        batch_pool: int = 1,
    ) -> None:
        super().__init__()
        if batch_size < 1 or test_batch_size < 1 or num_workers < 0:
            raise ConfigError("batch_size must be at least 1 and num_workers at least 0")
        self.data = root if isinstance(root, DataSets) else DataSets.of(root)
        if generate is not None and self.data.several:
            raise ConfigError(
                "drawn metaphases are one data set: make them by `make synthetic OUT=...`, and "
                "name their directory with the others"
            )
        self.augmentations = {"train": train_augmentations, "test": test_augmentations}
        self.batch_size = batch_size
        self.test_batch_size = test_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.test_split = test_split
        self.generate = generate
        if max_train_images and self.data.weighted:
            raise ConfigError("data.max_train_images and data.weights exclude each other")
        self.most = {"train": max_train_images, "val": max_val_images}
        self.repeat = repeat
        self.batch_pool = batch_pool
        self._coco: dict[str, dict[str, Any]] = {}
        # Another one makes other inputs of test images.
        self.test_mapper: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def prepare_data(self) -> None:
        """Makes the data set where it is one that can be made."""
        if self.generate is not None:
            self.generate(root=self.data.roots[0])

    def info(self) -> DatasetInfo:
        """Reads what the data set says of itself."""
        return self.data.info()

    def coco(self, stage: str) -> dict[str, Any]:
        """Returns the COCO dict of a stage (``train``, ``val`` or ``test``), read once."""
        if stage not in self._coco:
            coco = self.data.split(self.test_split if stage == "test" else stage)
            if most := self.most.get(stage):
                coco = thin(coco, most)
            self._coco[stage] = coco
        return self._coco[stage]

    def setup(self, stage: str) -> None:
        """Reads the annotations, so that what is wrong with them shows before training."""
        for name in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",)):
            self.coco(name)

    def _dataset(self, stage: str) -> ChromosomeDataset:
        kind = "train" if stage == "train" else "test"
        mapper = self.test_mapper if stage == "test" else None
        if mapper is None:
            mapper = MetaphaseMapper(self.augmentations[kind], is_train=kind == "train")
        return ChromosomeDataset(self.data.dicts(self.coco(stage)), mapper)

    def _ranks(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader.

        Over all ranks, an epoch sees each image once, or as often as its set's weight says.
        """
        dataset = self._dataset("train")
        rank, world_size = self._ranks()
        draws = EpochDraws(self.data.train_parts(), self.seed) if self.data.weighted else None
        size = len(dataset) if draws is None else len(draws)
        if size < self.batch_size * world_size:
            raise ConfigError(
                f"{size} training images do not fill one batch of "
                f"{self.batch_size} on {world_size} device(s): lower batch_size"
            )
        order: DistributedSampler[int] = DistributedSampler(
            range(size),  # type: ignore[arg-type]
            num_replicas=world_size,
            rank=rank,
            seed=self.seed,
            drop_last=True,
        )
        return ResumableLoader(
            DrawnDataset(dataset, self.seed),
            sampler=DrawSampler(order, draws, repeat=self.repeat),
            batch_size=self.batch_size,
            drop_last=True,
            pool=self.batch_pool,
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of validation images."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of test images."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, stage: str) -> DataLoader:
        dataset = self._dataset(stage)
        rank, world_size = self._ranks()
        sampler = ContiguousSampler(len(dataset), rank=rank, world_size=world_size)
        return WorkerLoader(
            dataset, sampler=sampler, batch_size=self.test_batch_size, **self._loader_options()
        )

    def _loader_options(self) -> dict[str, Any]:
        # A forked worker inherits locks of OpenCV's threads, but not the threads: keep none.
        cv2.setNumThreads(0)
        return {
            "num_workers": self.num_workers,
            "collate_fn": identity,
            "worker_init_fn": init_worker,
            "persistent_workers": self.num_workers > 0,
            # A loader draws its workers' seeds from this; from the global generator, it would take
            # numbers that the model then lacks.
            "generator": torch.Generator().manual_seed(self.seed),
            "pin_memory": torch.cuda.is_available(),
        }


def data_sets_of(cfg: DictConfig) -> DataSets:
    """Returns the data sets that ``cfg.data`` names, each image once, whatever its weight."""
    named = OmegaConf.to_container(cfg.data, resolve=True)
    assert isinstance(named, dict)
    return DataSets.of(named["root"], cases=named.get("cases", "shared"))


def thin(coco: dict[str, Any], count: int) -> dict[str, Any]:
    """Keeps ``count`` evenly spaced images of a COCO dict, and their annotations."""
    images = coco["images"]
    if len(images) <= count:
        return coco
    kept = [images[i * len(images) // count] for i in range(count)]
    ids = {image["id"] for image in kept}
    annotations = [a for a in coco["annotations"] if a["image_id"] in ids]
    return {**coco, "images": kept, "annotations": annotations}
