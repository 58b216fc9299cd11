"""Training of cell context on stored cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.context import ContextCell, Disturbance, disturbed, pad_cells
from deepacc_d2.context.batches import IGNORED
from deepacc_d2.errors import DataError
from deepacc_d2.modeling import CellContext
from deepacc_lightning.training.added_part import AddedPart

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


class DisturbedCells(Dataset):
    """Cells, disturbed anew in each epoch by seed, epoch and index alone."""

    def __init__(self, cells: Sequence[ContextCell], disturbance: Disturbance, seed: int) -> None:
        self.cells = cells
        self.disturbance = disturbance
        self.seed = seed
        self.epoch = 0
        self._cases: dict[str, list[int]] = defaultdict(list)
        for n, cell in enumerate(cells):
            if cell.case_id:
                self._cases[cell.case_id].append(n)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> ContextCell:
        cell = self.cells[index]
        rng = np.random.default_rng([self.seed, self.epoch, index])
        case = self._cases.get(cell.case_id, [])
        # Another view of the same image would be the same chromosome once more.
        relatives = [self.cells[n] for n in case if self.cells[n].image_id != cell.image_id]
        return disturbed(cell, relatives, rng, self.disturbance)


class CellsDataModule(pl.LightningDataModule):
    """Loads stored cells.

    Raises:
        DataError: there is no cell to train on or to validate with.
    """

    def __init__(
        self,
        train: Sequence[ContextCell],
        val: Sequence[ContextCell],
        *,
        disturbance: Disturbance,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        if not any(map(len, train)) or not any(map(len, val)):
            raise DataError("the detector found no chromosome: train it longer before its context")
        self.train_data = DisturbedCells(train, disturbance, seed)
        self.val_data = list(val)
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader of disturbed cells."""
        return DataLoader(
            self.train_data,
            batch_size=self.batch_size,
            shuffle=True,
            collate_fn=pad_cells,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of cells as they are."""
        return DataLoader(
            self.val_data,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            collate_fn=pad_cells,
        )


class ContextModule(AddedPart):
    """Trains a context by cross entropy over all kept boxes.

    Its figures are in percent and nats: ``by_box`` and ``in_context`` (found chromosomes that are
    named right), ``nll_by_box`` and ``nll_in_context`` (mean negative log-likelihood of all kept
    boxes).
    """

    part: CellContext
    _sums: Tensor

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch of cells."""
        known, shapes, hidden, labels = batch
        logits = self.part.correct(known, shapes, hidden)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(known))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Starts counting."""
        self._sums = torch.zeros(6)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts what is right with and without context."""
        known, shapes, hidden, labels = batch
        logits = self.part.correct(known, shapes, hidden)
        before = known[..., -(NUM_CLASSES + 1) :]
        real = labels != IGNORED
        found = real & (labels < NUM_CLASSES)
        sums = [found.sum(), real.sum()]
        for each in (before, logits):
            # Whether a box is one at all is asked of the sum over the classes.
            right = each[..., :-1].argmax(dim=-1) == labels
            nll = F.cross_entropy(each[real], labels[real], reduction="sum")
            sums += [(right & found).sum(), nll]
        self._sums += torch.stack([s.float().cpu() for s in sums])

    def on_validation_epoch_end(self) -> None:
        """Computes the figures."""
        found, boxes, before, nll_before, after, nll_after = self._sums.tolist()
        figures = {
            "by_box": 100 * before / max(found, 1),
            "in_context": 100 * after / max(found, 1),
            "nll_by_box": nll_before / max(boxes, 1),
            "nll_in_context": nll_after / max(boxes, 1),
        }
        self.keep(figures, shown="in_context")
