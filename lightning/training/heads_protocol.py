"""The ``heads`` protocol: a frozen trunk's output is cached once, heads are trained on that."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm

from deepacc_d2.data.feature_cache import VIEWS, CachedDataset, CacheLayout, FeatureCache
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling import ChromosomeRCNN
from deepacc_d2.modeling.cached import CachedRCNN, encode, fingerprint, trunk_weights
from deepacc_lightning.core.config import to_plain
from deepacc_lightning.core.worker_loader import identity
from deepacc_lightning.train import optimization
from deepacc_lightning.training.datamodule import ChromosomeDataModule
from deepacc_lightning.training.loading import DrawnDataset, DrawSampler, ResumableLoader
from deepacc_lightning.training.module import DetectionModule

STAGES = ("train", "val", "test")


class ViewSampler(Sampler[int]):
    """Gives every image once an epoch, shuffled, in a view drawn at random.

    Order and views depend on seed and epoch alone, so they are the same for every preset.

    Args:
        images: number of images.
        views: records of each image.
        seed: of order and views.
    """

    def __init__(self, images: int, views: int, seed: int) -> None:
        self.images, self.views, self.seed = images, views, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.images)
        yield from (order * self.views + rng.integers(self.views, size=self.images)).tolist()

    def __len__(self) -> int:
        return self.images


class HeadsDataModule(ChromosomeDataModule):
    """The data module whose loaders read caches of a trunk's output instead of images.

    Args:
        caches: by stage, ``train``, ``val`` and ``test``.
        options: of :class:`ChromosomeDataModule`.
    """

    def __init__(self, caches: dict[str, FeatureCache], **options: Any) -> None:
        super().__init__(**options)
        self.caches = caches

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader; each image is seen once an epoch, in one of its views."""
        cache = self.caches["train"]
        layout = cache.layout
        if len(layout.images) < self.batch_size:
            raise ConfigError(
                f"{len(layout.images)} training images do not fill one batch of "
                f"{self.batch_size}: lower heads.batch_size"
            )
        order = ViewSampler(len(layout.images), len(layout.views), self.seed)
        # Reading is a copy out of mapped memory: passing maps between processes would cost more.
        return ResumableLoader(
            DrawnDataset(CachedDataset(cache), self.seed),
            sampler=DrawSampler(order),
            batch_size=self.batch_size,
            drop_last=True,
            collate_fn=identity,
        )

    def _evaluation_loader(self, stage: str) -> DataLoader:
        cache = self.caches[stage]
        wanted = {image["id"] for image in self.coco(stage)["images"]}
        views = len(cache.layout.views)
        records = [i * views for i, x in enumerate(cache.layout.images) if x["image_id"] in wanted]
        dataset = CachedDataset(cache, records)
        return DataLoader(dataset, batch_size=self.test_batch_size, collate_fn=identity)


class HeadsModule(DetectionModule):
    """Trains heads alone; its checkpoints hold the whole detector, trunk included.

    Args:
        model: the heads.
        trunk: weights of backbone, FPN and RPN, which stay as they are.
        options: of :class:`DetectionModule`.
    """

    def __init__(self, model: CachedRCNN, *, trunk: dict[str, Tensor], **options: Any) -> None:
        super().__init__(model, **options)
        self.trunk = trunk

    def facts(self) -> dict[str, Any]:
        """Returns the trunk's fingerprint."""
        return {"trunk": fingerprint(self.trunk)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts trunk and heads together, so that ``make evaluate`` takes the file."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["model"] = {**self.trunk, **checkpoint["model"]}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Loads the heads out of a whole detector's weights."""
        super().load_weights({k: v for k, v in weights.items() if k not in self.trunk})


def heads_of(model: nn.Module) -> CachedRCNN:
    """Takes the heads out of a detector.

    Raises:
        ConfigError: it has none, as RetinaNet.
    """
    if not isinstance(model, ChromosomeRCNN):
        raise ConfigError(
            f"{type(model).__name__} has no ROI heads: PROTOCOL=heads is for presets of Faster "
            "R-CNN, leave the others out of EXPS"
        )
    return CachedRCNN(model.roi_heads.train())


def build_caches(
    cfg: DictConfig, model: ChromosomeRCNN, datamodule: ChromosomeDataModule, folder: Path
) -> dict[str, FeatureCache]:
    """Caches the trunk's output on all splits, or continues where that was stopped.

    Args:
        cfg: a training config, with ``heads``.
        model: a detector with the trunk's weights; its heads are not used.
        datamodule: of the images.
        folder: holds one cache a split.

    Returns:
        The caches by stage.

    Raises:
        ConfigError: the folder caches something else.
        DataError: an image cannot be read.
    """
    model = model.to(device_of(cfg)).eval()
    origin = {
        "trunk": fingerprint(trunk_weights(model.state_dict())),
        "data": datamodule.info().fingerprint,
        "augmentations": to_plain(cfg.scale.test_augmentations),
        "precision": cfg.trainer.precision,
        "rpn": [to_plain(cfg.scale.rpn[k]) for k in ("pre_nms_topk", "post_nms_topk")],
    }
    caches = {}
    for stage in STAGES:
        views = list(cfg.heads.views) if stage == "train" else ["none"]
        dicts = datamodule.data.dicts(datamodule.coco(stage))
        layout = cache_layout(
            cfg,
            model,
            dicts,
            views=views,
            sizes=input_sizes(dicts, datamodule.augmentations["test"], folder / stage, origin),
            origin=origin,
        )
        caches[stage] = FeatureCache(folder / stage, layout)
        fill_cache(
            caches[stage],
            model,
            dicts,
            datamodule.augmentations["test"],
            precision=cfg.trainer.precision,
            training=stage == "train",
            title=f"features of {stage}",
        )
    return caches


def device_of(cfg: DictConfig) -> str:
    """Returns where the trainer of a config would compute."""
    use_gpu = torch.cuda.is_available() and cfg.trainer.accelerator != "cpu"
    return "cuda" if use_gpu else "cpu"


def input_sizes(
    dicts: list[dict[str, Any]], augmentations: Any, folder: Path, origin: dict[str, Any]
) -> list[tuple[int, int]]:
    """Finds the size (height, width) of each image as the network gets it.

    It can depend on the pixels (``SCALE=lab`` measures the chromosomes), so that each image has to
    be read; an earlier job has done so if the folder has a cache of the same origin.

    Raises:
        DataError: an image cannot be read.
    """
    if (folder / "layout.json").is_file():
        layout = FeatureCache(folder).layout
        known = {x["image_id"]: (x["input_height"], x["input_width"]) for x in layout.images}
        if layout.origin == origin and all(item["image_id"] in known for item in dicts):
            return [known[item["image_id"]] for item in dicts]
    mapper = MetaphaseMapper(augmentations, is_train=False)
    shapes = (tuple(mapper(item)["image"].shape[1:]) for item in dicts)
    return [(int(height), int(width)) for height, width in shapes]


def cache_layout(
    cfg: DictConfig,
    model: ChromosomeRCNN,
    dicts: list[dict[str, Any]],
    *,
    views: list[str],
    sizes: list[tuple[int, int]],
    origin: dict[str, Any],
) -> CacheLayout:
    """Works out the places of all records from the sizes (height, width) of the inputs."""
    images = [
        {
            **{k: item[k] for k in ("image_id", "height", "width")},
            "file_name": Path(item["file_name"]).name,
            "input_height": height,
            "input_width": width,
        }
        for item, (height, width) in zip(dicts, sizes, strict=True)
    ]
    shapes = model.backbone.output_shape()
    levels = list(cfg.scale.roi.in_features)
    return CacheLayout(
        images=images,
        views=views,
        strides={level: int(shapes[level].stride) for level in levels},
        channels=int(shapes[levels[0]].channels),
        divisor=max(int(model.backbone.size_divisibility), 1),
        max_proposals=max(cfg.scale.rpn.post_nms_topk),
        max_boxes=max(len(item["classes"]) for item in dicts),
        dtype="bfloat16" if cfg.trainer.precision == "bf16-mixed" else "float32",
        origin=origin,
    )


def fill_cache(
    cache: FeatureCache,
    model: ChromosomeRCNN,
    dicts: list[dict[str, Any]],
    augmentations: Any,
    *,
    precision: str,
    training: bool,
    title: str,
) -> None:
    """Writes what a cache still lacks; all views of an image go through the trunk at once."""
    missing = cache.missing_images()
    views = [VIEWS[name] for name in cache.layout.views]
    mappers = [MetaphaseMapper([*augmentations, *_flips(*flips)], is_train=True) for flips in views]
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    device = next(model.parameters()).device.type
    total = len(dicts)
    if missing:
        print(f"{title}: {cache.nbytes / 1e9:.1f} GB in {cache.folder}", flush=True)
    bar = tqdm(
        missing,
        desc=title,
        initial=total - len(missing),
        total=total,
        disable=not missing,
        mininterval=0.2 if sys.stderr.isatty() else 30,
    )
    for index in bar:
        inputs = [mapper(dicts[index]) for mapper in mappers]
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            outputs = encode(model, inputs, list(cache.layout.strides), training=training)
        for view, (item, (maps, proposals)) in enumerate(zip(inputs, outputs, strict=True)):
            cache.write(index * len(views) + view, maps, proposals, item["instances"])
    cache.flush()


def _flips(horizontal: bool, vertical: bool) -> list[T.Augmentation]:
    flips = []
    if horizontal:
        flips.append(T.RandomFlip(prob=1.0, horizontal=True, vertical=False))
    if vertical:
        flips.append(T.RandomFlip(prob=1.0, horizontal=False, vertical=True))
    return flips


def build_heads_module(
    cfg: DictConfig, model: ChromosomeRCNN, config: dict[str, Any]
) -> HeadsModule:
    """Makes the heads of a detector trainable as ``cfg.heads`` says.

    Args:
        cfg: a training config, with ``heads``.
        model: the detector, with the trunk's weights.
        config: plain config that goes into checkpoints.
    """
    trunk = {k: v.clone() for k, v in trunk_weights(model.state_dict()).items()}
    return HeadsModule(heads_of(model), trunk=trunk, config=config, **optimization(cfg.heads.optim))
