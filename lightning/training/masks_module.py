"""Training of instance masks on composed spreads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from detectron2.data import transforms as T
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from deepacc_d2.data.augment.degrade import RandomFocus, RandomJpeg, RandomNoise
from deepacc_d2.data.masks.compose import Crowding, compose
from deepacc_d2.data.masks.samples import MaskSample, make_sample
from deepacc_d2.data.masks.spreads import Spread
from deepacc_d2.images.transforms import RandomResolution, RandomTone
from deepacc_d2.modeling.instance_masks import InstanceMasks, show
from deepacc_lightning.training.added_part import AddedPart
from deepacc_lightning.training.loading import numpy_seed

CROSSING = 0.05
"""Share of a mask that others cover from which on it counts as crossing."""
_VAL_SEED = 77


class ComposedSpreads(Dataset):
    """Spreads composed anew in each epoch by seed, epoch and index alone.

    Args:
        spreads: to compose.
        crowding: how.
        seed: of the training; None composes them always in the same way, undisturbed.
        most: chromosomes of a spread that are looked at.
    """

    def __init__(
        self, spreads: Sequence[Spread], crowding: Crowding, *, seed: int | None, most: int = 1000
    ) -> None:
        self.spreads, self.crowding = spreads, crowding
        self.seed, self.most = seed, most
        self.epoch = 0
        self.changes = T.AugmentationList(
            [RandomResolution(prob=0.3), RandomFocus(), RandomTone(), RandomNoise(), RandomJpeg()]
        )

    def __len__(self) -> int:
        return len(self.spreads)

    def __getitem__(self, index: int) -> MaskSample:
        if self.seed is None:
            rng = np.random.default_rng([_VAL_SEED, index])
            image, placed = compose(self.spreads[index], self.crowding, rng)
            return make_sample(image, placed, None)
        rng = np.random.default_rng([self.seed, self.epoch, index])
        image, placed = compose(self.spreads[index], self.crowding, rng)
        inputs = T.AugInput(image)
        with numpy_seed(int(rng.integers(2**31))):
            self.changes(inputs)
        return make_sample(np.ascontiguousarray(inputs.image), placed, rng, self.most)


class MasksDataModule(pl.LightningDataModule):
    """Loads composed spreads, one or several a step."""

    def __init__(
        self, train: ComposedSpreads, val: ComposedSpreads, *, batch_size: int, seed: int
    ) -> None:
        super().__init__()
        self.train_data, self.val_data = train, val
        self.batch_size, self.seed = batch_size, seed

    def train_dataloader(self) -> DataLoader:
        """Returns the shuffled loader."""
        return DataLoader(
            self.train_data,
            batch_size=self.batch_size,
            shuffle=True,
            collate_fn=list,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of validation spreads, one a time."""
        return DataLoader(self.val_data, batch_size=1, collate_fn=list)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the loss (n,) of logits (n, S, S): cross entropy over the mask's area, and Dice.

    Most of a window is background: a mean over its pixels would say little of a small chromosome.
    Dice after Milletari et al. 2016, "V-Net".

    Args:
        logits: of the pixels.
        target: (n, S, S), 0 to 1.
    """
    area = target.sum((1, 2))
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum((1, 2))
    shares = logits.sigmoid()
    dice = 1 - (2 * (shares * target).sum((1, 2)) + 1) / (shares.sum((1, 2)) + area + 1)
    return entropy / (area + 1) + dice


class MasksModule(AddedPart):
    """Trains instance masks.

    Its figures are ``iou`` and ``iou_crossing``, medians over the windows of composed spreads, in
    percent, and how many there are, ``masks`` and ``crossing``.
    """

    part: InstanceMasks
    _seen: list[tuple[float, float]]

    def training_step(self, batch: list[MaskSample], batch_idx: int) -> Tensor:
        """Returns the mean loss over the chromosomes of a few spreads."""
        losses = [mask_loss(logits, target) for s in batch for logits, target, _ in self._look(s)]
        # A spread without a mask is a step without a gradient.
        loss = torch.cat(losses).mean() if losses else self.part.out.weight.sum() * 0
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def _look(self, sample: MaskSample) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Returns logits, masks and shares covered of each group of windows."""
        image = sample.image[None].to(self.device)
        boxes = sample.boxes.to(self.device)
        found = []
        for group, masks in zip(sample.windows, sample.masks, strict=True):
            areas = group.areas.to(self.device)
            logits = self.part.of_pixels(
                show(image, areas, group.side), boxes[group.rows.to(self.device)], areas
            )
            found.append((logits, masks.to(self.device), sample.covered[group.rows]))
        return found

    def on_validation_epoch_start(self) -> None:
        """Starts counting."""
        self._seen = []

    def validation_step(self, batch: list[MaskSample], batch_idx: int) -> None:
        """Compares masks."""
        for logits, target, covered in self._look(batch[0]):
            found, true = logits > 0, target > 0.5
            both = (found & true).sum((1, 2)).float()
            iou = both / (found | true).sum((1, 2)).clamp(min=1)
            self._seen += list(zip(iou.tolist(), covered.tolist(), strict=True))

    def on_validation_epoch_end(self) -> None:
        """Computes the figures."""
        seen = np.reshape(self._seen, (-1, 2))
        crossing = seen[seen[:, 1] > CROSSING, 0]
        figures = {
            "iou": 100 * float(np.median(seen[:, 0])) if len(seen) else 0.0,
            "iou_crossing": 100 * float(np.median(crossing)) if len(crossing) else 0.0,
            "masks": len(seen),
            "crossing": len(crossing),
        }
        self.keep(figures, shown="iou")
