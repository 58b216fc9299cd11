"""The cells that a detector keeps, on disk, so that a stopped ``make context`` can continue."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from tqdm import tqdm

from deepacc_d2.context import ContextCell, read_cells
from deepacc_d2.data.dataset import ChromosomeDataset
from deepacc_d2.data.mapper import MetaphaseMapper
from deepacc_d2.data.union import DataSets
from deepacc_d2.files import whole_file
from deepacc_d2.modeling import CellContext, ChromosomeRCNN
from deepacc_lightning.core.worker_loader import WorkerLoader, identity
from deepacc_lightning.training.datamodule import init_worker, thin
from deepacc_lightning.training.loading import Draw, DrawnDataset

CHUNK = 200
"""Images of a file: what a stopped run loses at most."""


@dataclass
class CellStore:
    """Reads cells, :data:`CHUNK` images a file.

    Attributes:
        folder: of the files.
        data: the data sets.
        model: the detector, in evaluation mode.
        context: says which boxes are kept.
        augmentations: the checkpoint's nodes, by split.
        facts: what the cells depend on besides the augmentations; a file of others is made anew.
        seed: of the augmentations.
        images: so many of a split, evenly spaced; None for all.
        num_workers: that load images.
        dtype: that the detector computes in; of all but float32 by autocast.
    """

    folder: Path
    data: DataSets
    model: ChromosomeRCNN
    context: CellContext
    augmentations: Mapping[str, Any]
    facts: Mapping[str, Any]
    seed: int
    images: int | None
    num_workers: int
    dtype: torch.dtype = torch.float32

    def read(self, split: str, view: int) -> list[ContextCell]:
        """Returns the cells of a split, detected where they are not stored yet.

        Args:
            split: ``train`` or ``val``.
            view: 0 as the images are, else augmented.
        """
        coco = self.data.split(split)
        dicts = self.data.dicts(thin(coco, self.images) if self.images else coco)
        nodes = self.augmentations["train" if view else "val"]
        mapper = MetaphaseMapper([instantiate(node) for node in nodes], is_train=True)
        dataset = DrawnDataset(ChromosomeDataset(dicts, mapper), self.seed)
        self.folder.mkdir(exist_ok=True)
        key = json.dumps({**self.facts, "augmentations": nodes}, sort_keys=True, default=str)
        cells: list[ContextCell] = []
        starts = range(0, len(dicts), CHUNK)
        for start in tqdm(starts, desc=f"reading cells, {split}, view {view}", unit="chunk"):
            path = self.folder / f"{split}-{view}-{start:05d}.pt"
            found = _read_chunk(path, key)
            if found is None:
                draws = [Draw(i, view) for i in range(start, min(start + CHUNK, len(dicts)))]
                found = self._detect(dataset, draws, [dicts[d.index]["case_id"] for d in draws])
                with whole_file(path) as temporary:
                    torch.save({"key": key, "cells": [vars(cell) for cell in found]}, temporary)
            cells += found
        return cells

    def _detect(
        self, dataset: DrawnDataset, draws: list[Draw], cases: list[str | None]
    ) -> list[ContextCell]:
        loader = WorkerLoader(
            dataset,
            sampler=draws,
            batch_size=1,
            collate_fn=identity,
            num_workers=self.num_workers,
            worker_init_fn=init_worker,
        )
        found = []
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype != torch.float32):
            for (item,), case in zip(loader, cases, strict=True):
                found += read_cells(self.model, [{**item, "case_id": case}], self.context)
        return found


def _read_chunk(path: Path, key: str) -> list[ContextCell] | None:
    """Returns stored cells, None where there are none of this key."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile):
        return None  # cut short or damaged: made anew
    if content.get("key") != key:
        return None
    return [ContextCell(**cell) for cell in content["cells"]]
