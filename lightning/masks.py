"""``make masks``: instance masks for a finished detector, trained on composed spreads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from deepacc_d2.checkpoint import build, build_from_checkpoint, read_checkpoint
from deepacc_d2.data.masks.compose import Crowding
from deepacc_d2.data.masks.spreads import Spread, drawn_spread, outlined, read_spread
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.files import write_json
from deepacc_d2.images.view import ViewSettings
from deepacc_d2.modeling import InstanceMasks
from deepacc_lightning.core.cli import (
    alone,
    check_accelerator,
    check_data_root,
    run_entry_point,
    run_guarded,
)
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.run_info import describe_run, make_run_dir
from deepacc_lightning.train import quiet
from deepacc_lightning.training.added_part import part_trainer, without_part, write_with_part
from deepacc_lightning.training.datamodule import data_sets_of, thin
from deepacc_lightning.training.masks_module import ComposedSpreads, MasksDataModule, MasksModule

register_resolvers()

PLACE = "instance_masks"


@alone(lambda cfg: cfg.out)
def run(cfg: DictConfig) -> dict[str, float]:
    """Composes spreads, trains the masks on them and writes the checkpoint with them.

    Returns:
        Validation figures, see :class:`MasksModule`.

    Raises:
        UserError: a bad checkpoint, data set, setting or output directory.
    """
    quiet()
    check_data_root(cfg, several=True)
    check_accelerator(cfg.accelerator, "accelerator")
    check_settings(cfg)
    content = without_part(read_checkpoint(cfg.ckpt), PLACE)
    build_from_checkpoint(content, cfg.ckpt)  # refuses what is no detector
    node = {
        "_target_": "deepacc_d2.modeling.InstanceMasks",
        **OmegaConf.to_container(cfg.masks, resolve=True),  # type: ignore[dict-item]
    }
    pl.seed_everything(int(cfg.seed), verbose=False)
    masks: InstanceMasks = build(node)
    if cfg.start is not None:
        take_over(masks, cfg.start)
    out = make_run_dir(Path(cfg.out).resolve())
    crowding = Crowding(**cfg.crowding)
    seed = int(cfg.seed)
    val = ComposedSpreads(read(cfg, content, "val"), crowding, seed=None)
    train: list[Spread] = []
    if cfg.epochs:
        train = [*read(cfg, content, "train"), *draw(cfg, content)]
    composed = ComposedSpreads(train, crowding, seed=seed, most=int(cfg.most))
    module = MasksModule(
        masks,
        lr=float(cfg.lr),
        weight_decay=float(cfg.weight_decay),
        warmup_steps=int(cfg.warmup_steps),
    )
    data = MasksDataModule(composed, val, batch_size=int(cfg.batch_size), seed=seed)
    trainer = part_trainer(cfg, out, clip=5.0)
    if cfg.epochs:
        trainer.fit(module, data)
    else:
        trainer.validate(module, data, verbose=False)
    figures = {k: round(float(v), 2) for k, v in module.figures.items()}
    written = out / "checkpoints" / "best.ckpt"
    kept = ("card", "karyotype", "selection")
    write_with_part(written, content, masks, place=PLACE, node=node, kept=kept)
    record = {
        "figures": figures,
        "history": module.history,
        "spreads": len(train),
        "masks": sum(len(spread.bodies) for spread in train),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    write_json(out / "masks.json", {**describe_run(), **record})
    print(
        f"{figures['masks']:.0f} chromosomes of composed validation spreads: median IoU "
        f"{figures['iou']:.2f} %; the {figures['crossing']:.0f} crossing ones: "
        f"{figures['iou_crossing']:.2f} %"
    )
    print(f"written to {written}")
    return figures


def check_settings(cfg: DictConfig) -> None:
    """Refuses numbers that mean nothing.

    Raises:
        ConfigError: names the key.
    """
    for key, least in (("epochs", 0 if cfg.start else 1), ("drawn", 0), ("most", 1)):
        if cfg[key] < least:
            raise ConfigError(f"{key}={cfg[key]}: give at least {least}")
    for key in ("images", "val_images"):
        if cfg[key] is not None and cfg[key] < 1:
            raise ConfigError(f"{key}={cfg[key]}: give at least 1, or null for all")
    if len(cfg.zoom) != 2 or not 0 < cfg.zoom[0] <= cfg.zoom[1]:
        raise ConfigError(f"zoom={list(cfg.zoom)}: give two factors, such as [0.8,1.25]")


def _sizes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how large chromosomes and images are in the input of a checkpoint's detector."""
    nodes = content["deepacc_config"]["scale"]["test_augmentations"]
    view = ViewSettings.from_augmentations(nodes)
    return {"chromosome_size": view.chromosome_size, "max_size": view.max_size}


def _zooms(cfg: DictConfig, count: int, salt: int) -> list[float]:
    rng = np.random.default_rng([int(cfg.seed), salt])
    low, high = np.log(cfg.zoom)
    return np.exp(rng.uniform(low, high, count)).tolist()


def read(cfg: DictConfig, content: Mapping[str, Any], split: str) -> list[Spread]:
    """Reads the spreads of a split.

    Raises:
        DataError: none of its images shows two chromosomes whose masks are known.
    """
    data = data_sets_of(cfg)
    coco = data.split(split)
    count = cfg.images if split == "train" else cfg.val_images
    coco = thin(coco, int(count)) if count else coco
    dicts, outlines = data.dicts(coco), outlined(coco)
    zooms = _zooms(cfg, len(dicts), 0) if split == "train" else [1.0] * len(dicts)
    found = []
    pairs = zip(tqdm(dicts, f"reading {split}", unit="image"), zooms, strict=True)
    for item, zoom in pairs:
        own = outlines[int(item["image_id"])]
        spread = read_spread(item, own, zoom=zoom, **_sizes(content))
        if spread is not None:
            found.append(spread)
    if not found:
        raise DataError(
            f"no {split} image has two chromosomes that touch no other one, and the data set "
            "has no outlines: use one with more images, or with outlines"
        )
    return found


def draw(cfg: DictConfig, content: Mapping[str, Any]) -> list[Spread]:
    """Draws spreads to train on."""
    count, seed = int(cfg.drawn), 1000 + int(cfg.seed)
    zooms = _zooms(cfg, count, 1)
    numbers = tqdm(range(count), "drawing", unit="spread", disable=not count)
    made = [drawn_spread(seed, n, zoom=zooms[n], **_sizes(content)) for n in numbers]
    return [spread for spread in made if spread is not None]


def take_over(masks: InstanceMasks, path: str) -> None:
    """Gives masks the weights of another checkpoint's.

    Raises:
        DataError: it has none, or of another network.
    """
    weights = read_checkpoint(path)["model"]
    prefix = f"{PLACE}."
    own = {k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)}
    if not own:
        raise DataError(f"checkpoint {path} has no instance masks: make some by `make masks`")
    try:
        masks.load_state_dict(own)
    except RuntimeError as error:
        raise DataError(f"checkpoint {path} has masks of another masks.width") from error


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="masks")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("masks", main)
