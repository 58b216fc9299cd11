"""``make context``: cell context trained on what a finished detector finds."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from deepacc_d2.checkpoint import (
    AUGMENTATIONS,
    build,
    build_from_checkpoint,
    check_trusted,
    read_checkpoint,
)
from deepacc_d2.context import Disturbance
from deepacc_d2.context.cells import check_predictor
from deepacc_d2.context.steadiness import steadiness
from deepacc_d2.detection.detector import PRECISIONS, model_hash
from deepacc_d2.errors import ConfigError
from deepacc_d2.files import write_json
from deepacc_d2.method import check_shares
from deepacc_d2.modeling import CellContext, ChromosomeRCNN
from deepacc_lightning.core.cli import (
    alone,
    check_accelerator,
    check_data_root,
    run_entry_point,
    run_guarded,
    uses_gpu,
)
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.run_info import describe_run, make_run_dir
from deepacc_lightning.train import quiet
from deepacc_lightning.training.added_part import part_trainer, without_part, write_with_part
from deepacc_lightning.training.context_module import CellsDataModule, ContextModule
from deepacc_lightning.training.context_store import CellStore
from deepacc_lightning.training.datamodule import data_sets_of

register_resolvers()

MADE = {
    "dropped": "the same with a fifth of the boxes taken away",
    "third": "of third homologs put in from another cell of the case",
    "three": "of cells with one, all three copies named right",
}
"""How the printed lines name what :class:`deepacc_d2.context.steadiness.Steadiness` counts."""
PLACE = "roi_heads.box_predictor.context"


@alone(lambda cfg: cfg.out)
def run(cfg: DictConfig) -> dict[str, float]:
    """Reads cells, trains the context on them and writes the checkpoint with it.

    Returns:
        Validation figures, see :class:`ContextModule`.

    Raises:
        UserError: a bad checkpoint, data set, setting or output directory.
    """
    quiet()
    check_data_root(cfg, several=True)
    check_accelerator(cfg.accelerator, "accelerator")
    if cfg.read_precision not in PRECISIONS:
        raise ConfigError(f"read_precision={cfg.read_precision}: choose {', '.join(PRECISIONS)}")
    if cfg.views < 1 or cfg.epochs < 1:
        raise ConfigError(f"views={cfg.views}, epochs={cfg.epochs}: give at least 1 of each")
    disturbance = Disturbance(**cfg.disturbance)
    content = without_part(read_checkpoint(cfg.ckpt), PLACE)
    if cfg.statistics_share is not None:
        check_shares(statistics_share=cfg.statistics_share)
        content["deepacc_config"]["model"]["statistics_share"] = float(cfg.statistics_share)
    model = build_from_checkpoint(content, cfg.ckpt).to(memory_format=torch.channels_last)
    predictor = check_predictor(model)
    assert isinstance(model, ChromosomeRCNN)
    model.to("cuda" if uses_gpu(cfg.accelerator) else "cpu").eval()
    node = {
        "_target_": "deepacc_d2.modeling.CellContext",
        "in_features": predictor.bbox_pred.in_features,
        "num_classes": predictor.num_classes,
        **OmegaConf.to_container(cfg.context, resolve=True),  # type: ignore[dict-item]
    }
    pl.seed_everything(int(cfg.seed), verbose=False)
    context: CellContext = build(node)
    out = make_run_dir(Path(cfg.out).resolve())
    scale = content["deepacc_config"]["scale"]
    augmentations = {"train": scale["train_augmentations"], "val": scale["test_augmentations"]}
    check_trusted(augmentations, extra=AUGMENTATIONS)
    data_sets = data_sets_of(cfg)
    facts = {
        "model": model_hash(Path(cfg.ckpt)),
        "data": data_sets.info().fingerprint,
        "keep": [
            *(context.min_foreground, context.iou),
            *(context.crossing_iou, context.crossing_score),
        ],
        "seed": int(cfg.seed),
        "images": cfg.images,
        "precision": cfg.read_precision,
        "statistics_share": content["deepacc_config"]["model"].get("statistics_share", 0.0),
    }
    store = CellStore(
        folder=out / "cells",
        data=data_sets,
        model=model,
        context=context,
        augmentations=augmentations,
        facts=facts,
        seed=int(cfg.seed),
        images=cfg.images,
        num_workers=int(cfg.num_workers),
        dtype=PRECISIONS[cfg.read_precision],
    )
    val = store.read("val", 0)
    train = [cell for view in range(int(cfg.views)) for cell in store.read("train", view)]
    module = ContextModule(
        context,
        lr=float(cfg.lr),
        weight_decay=float(cfg.weight_decay),
        warmup_steps=int(cfg.warmup_steps),
    )
    data = CellsDataModule(
        train,
        val,
        disturbance=disturbance,
        batch_size=int(cfg.batch_size),
        seed=int(cfg.seed),
    )
    part_trainer(cfg, out, clip=1.0).fit(module, data)
    figures = {k: round(float(v), 4) for k, v in module.figures.items()}
    written = out / "checkpoints" / "best.ckpt"
    # What `make karyotype` chose for the detector without context is left out.
    kept = ("card", "selection")
    write_with_part(written, content, context, place=PLACE, node=node, kept=kept)
    settings = OmegaConf.to_container(cfg, resolve=True)
    shares = steadiness(context.cpu(), val, seed=int(cfg.seed)).shares()
    record = {
        "figures": figures,
        "steadiness": shares,
        "history": module.history,
        "cells": len(train),
    }
    write_json(out / "context.json", describe_run(**facts, **record, config=settings))
    print(
        f"of the chromosomes found in {len(val)} validation images, named right: "
        f"{figures['by_box']:.2f} % by the box alone, {figures['in_context']:.2f} % in context"
    )
    for name, what in MADE.items():
        share = shares[name]
        if not share["of"]:
            continue  # no case has two validation images
        print(f"{what}: {share['by_box']:.2f} and {share['in_context']:.2f} % of {share['of']}")
    print(f"written to {written}")
    return figures


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="context")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("context", main)
