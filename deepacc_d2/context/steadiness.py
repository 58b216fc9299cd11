"""How steady a context is where a cell is not whole and normal.

A context that takes two of each class for a law would hide what is looked for. So it is asked what
it says with chromosomes missing, with chromosomes of another cell of the same case in doubt of
being its own, and of a third homolog, put in as the detector saw it in another cell of the case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.context.batches import pad_cells
from deepacc_d2.context.cells import ContextCell
from deepacc_d2.karyotype.counts import AUTOSOMES
from deepacc_d2.modeling import CellContext


@dataclass(frozen=True)
class Steadiness:
    """Counts, by each box alone and in context.

    Attributes:
        whole: found chromosomes named right, (by box, in context), and of how many.
        dropped: the same of cells that lack a share of their boxes.
        third: inserted third homologs named right, and of how many.
        three: cells in which all three copies are named right, of those.
    """

    whole: tuple[int, int, int]
    dropped: tuple[int, int, int]
    third: tuple[int, int, int]
    three: tuple[int, int, int]

    def shares(self) -> dict[str, dict[str, float | int]]:
        """Returns percentages by name, None-free: a share of nothing is 0."""
        return {
            name: {
                "by_box": round(100 * before / max(total, 1), 2),
                "in_context": round(100 * after / max(total, 1), 2),
                "of": total,
            }
            for name, (before, after, total) in vars(self).items()
        }


def steadiness(
    context: CellContext, cells: Sequence[ContextCell], *, drop: float = 0.2, seed: int = 0
) -> Steadiness:
    """Measures a context on cells that it was not trained on.

    Args:
        context: trained; its mode is kept.
        cells: as a detector gave them, undisturbed.
        drop: share of boxes that are taken away for ``dropped``.
        seed: of what is taken and put in.
    """
    rng = np.random.default_rng(seed)
    was_training = context.training
    context.eval()
    try:
        whole = _right(context, cells)
        thinned = [_rows(cell, np.flatnonzero(rng.random(len(cell)) >= drop)) for cell in cells]
        dropped = _right(context, thinned)
        third = three = (0, 0, 0)
        for cell, copies in third_homologs(cells, rng):
            answers = _answers(context, cell)
            right = [(answer == cell.labels)[copies] for answer in answers]
            third = _add(third, [int(r[-1]) for r in right], 1)
            three = _add(three, [int(r.all()) for r in right], 1)
    finally:
        context.train(was_training)
    return Steadiness(whole, dropped, third, three)


def third_homologs(
    cells: Sequence[ContextCell], rng: np.random.Generator
) -> list[tuple[ContextCell, list[int]]]:
    """Puts a third homolog into each cell that has a relative with one.

    Returns:
        Cells with one box more, the last, and the rows of the three copies in each, it last.
    """
    cases: dict[str, list[ContextCell]] = defaultdict(list)
    for cell in cells:
        if cell.case_id:
            cases[cell.case_id].append(cell)
    made = []
    for cell in cells:
        others = [c for c in cases.get(cell.case_id, []) if c.image_id != cell.image_id]
        if not others:
            continue
        other = others[int(rng.integers(len(others)))]
        counts = np.bincount(cell.labels.numpy(), minlength=NUM_CLASSES + 1)
        pairs = {k for k in range(AUTOSOMES) if counts[k] == 2}
        rows = [n for n, label in enumerate(other.labels.tolist()) if label in pairs]
        if not rows:
            continue
        row = rows[int(rng.integers(len(rows)))]
        extra = _rows(other, np.array([row]))
        label = int(extra.labels[0])
        own = (cell.labels == label).nonzero()[:, 0].tolist()
        known, shapes, labels = (
            torch.cat([getattr(cell, name), getattr(extra, name)])
            for name in ("known", "shapes", "labels")
        )
        together = replace(cell, known=known, shapes=shapes, labels=labels)
        made.append((together, [*own, len(cell)]))
    return made


def _rows(cell: ContextCell, rows: np.ndarray) -> ContextCell:
    kept = torch.from_numpy(rows).long()
    return replace(cell, known=cell.known[kept], shapes=cell.shapes[kept], labels=cell.labels[kept])


@torch.no_grad()
def _answers(context: CellContext, cell: ContextCell) -> tuple[Tensor, Tensor]:
    """Returns the class (N,) of each box by itself and in context, whatever background says."""
    known, shapes, hidden, _ = pad_cells([cell])
    corrected = context.correct(known, shapes, hidden)[0, : len(cell)]
    before = known[0, : len(cell), -(NUM_CLASSES + 1) :]
    return before[:, :-1].argmax(dim=1), corrected[:, :-1].argmax(dim=1)


def _right(context: CellContext, cells: Sequence[ContextCell]) -> tuple[int, int, int]:
    counted = (0, 0, 0)
    for cell in cells:
        found = cell.labels < NUM_CLASSES
        right = [int(((a == cell.labels) & found).sum()) for a in _answers(context, cell)]
        counted = _add(counted, right, int(found.sum()))
    return counted


def _add(counted: tuple[int, int, int], right: list[int], total: int) -> tuple[int, int, int]:
    return counted[0] + right[0], counted[1] + right[1], counted[2] + total
