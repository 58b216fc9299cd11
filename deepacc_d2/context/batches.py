"""Cells disturbed at random, and padded to batches.

A context that has only seen whole, normal cells learns that two of each class are a law. Boxes are
therefore dropped, and boxes of other cells of the same case added under their own class, so that a
missing chromosome and a third homolog are nothing new.

Shapes: N boxes of a cell, E entries a box, B cells, L boxes of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.context.cells import ContextCell
from deepacc_d2.errors import ConfigError
from deepacc_d2.modeling.cell_context import median_shape

IGNORED = -100
"""Label of a row that only fills up."""


@dataclass(frozen=True)
class Disturbance:
    """How training cells are changed.

    Attributes:
        drop: mean share of boxes that are left out; a cell's share is uniform up to twice that.
        insert: share of cells that get chromosomes of another cell of their case.
        most_inserted: as many as that at most, at least one.

    Raises:
        ConfigError: a value is out of its range.
    """

    drop: float = 0.15
    insert: float = 0.4
    most_inserted: int = 3

    def __post_init__(self) -> None:
        if not (0 <= self.drop <= 0.5 and 0 <= self.insert <= 1 and self.most_inserted >= 1):
            raise ConfigError(
                "context: give 0 <= drop <= 0.5, 0 <= insert <= 1 and most_inserted >= 1, not "
                f"{self.drop}, {self.insert}, {self.most_inserted}"
            )


def disturbed(
    cell: ContextCell,
    relatives: Sequence[ContextCell],
    rng: np.random.Generator,
    settings: Disturbance,
) -> ContextCell:
    """Returns a cell with some boxes dropped and perhaps some of another cell added.

    Args:
        cell: as it was read.
        relatives: other cells of its case; with none nothing is added.
        rng: decides.
        settings: how much.
    """
    kept = torch.from_numpy(rng.random(len(cell)) >= 2 * settings.drop * rng.random())
    parts = [(cell.known[kept], cell.shapes[kept], cell.labels[kept])]
    if relatives and rng.random() < settings.insert:
        other = relatives[int(rng.integers(len(relatives)))]
        rows = np.flatnonzero(other.labels.numpy() < NUM_CLASSES)
        number = min(len(rows), 1 + int(rng.integers(settings.most_inserted)))
        chosen = torch.from_numpy(rng.choice(rows, number, replace=False))
        parts.append((other.known[chosen], other.shapes[chosen], other.labels[chosen]))
    known, shapes, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    return replace(cell, known=known, shapes=shapes, labels=labels)


def pad_cells(cells: Sequence[ContextCell]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pads cells to one number of boxes.

    Returns:
        ``known`` (B, L, E) float32, ``shapes`` (B, L, 3) less each cell's median, ``hidden`` (B, L)
        true where a row only fills up, and ``labels`` (B, L), :data:`IGNORED` there. One row at
        least is hidden in every cell, as in :meth:`CellContext.of_image`.
    """
    longest = max(len(cell) for cell in cells) + 1
    entries = cells[0].known.shape[1]
    known = torch.zeros(len(cells), longest, entries)
    shapes = torch.zeros(len(cells), longest, cells[0].shapes.shape[1])
    hidden = torch.ones(len(cells), longest, dtype=torch.bool)
    labels = torch.full((len(cells), longest), IGNORED)
    for n, cell in enumerate(cells):
        size = len(cell)
        known[n, :size] = cell.known.float()
        shapes[n, :size] = cell.shapes - median_shape(cell.shapes)
        hidden[n, :size] = False
        labels[n, :size] = cell.labels
    return known, shapes, hidden, labels
