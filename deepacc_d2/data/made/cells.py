"""Cells with an inserted or a removed chromosome, as many of each class, out of a split's cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.chromosomes import CLASSES, NUM_CLASSES
from deepacc_d2.data.made.homologs import Changed, Scene, cut_out, insert, look_at, remove
from deepacc_d2.images.gray import Gray

VERSION = 1
"""Raised whenever the same order makes other pixels, so that kept detections are made anew."""

# Cells that are tried one after another to be changed, and to take a homolog from: of the same
# case, and of others with chromosomes of about the same size.
RECEIVERS, OWN_DONORS, OTHER_DONORS = 3, 3, 2
_SCENES = 12  # kept in memory, about 4 MB each


@dataclass(frozen=True, eq=False)
class SourceCell:
    """A real cell.

    Attributes:
        name: that its image is read by.
        case_id: of its case; None if not known.
        boxes: float64 (G, 4) XYXY.
        classes: int64 (G,) 0..23.
    """

    name: str
    case_id: str | None
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """One cell to be made.

    Attributes:
        gain: a homolog is inserted; else a chromosome is removed.
        class_index: of it, 0..23.
        receivers: rows of the cells to try.
        seed: of angle, place and choice.
    """

    gain: bool
    class_index: int
    receivers: tuple[int, ...]
    seed: int

    @property
    def name(self) -> str:
        """Such as ``gain 21 104``."""
        return f"{'gain' if self.gain else 'loss'} {CLASSES[self.class_index]} {self.seed}"


@dataclass(frozen=True, eq=False)
class MadeCell:
    """A made cell: its order, the cell that was changed, where the homolog is from, the result."""

    order: Order
    of: str
    donor: str | None
    changed: Changed


def plan(cells: Sequence[SourceCell], number: int, *, gain: bool, seed: int) -> list[Order]:
    """Plans so many made cells, the 24 classes in turn.

    Only normal cells, 46,XX and 46,XY, are changed, so that the one change is all that is abnormal;
    of Y one is inserted into, or removed from, those that have it.

    Returns:
        At most ``number`` orders, those of one case together; fewer where a class has no cell.
    """
    rng = np.random.default_rng([seed, int(gain), VERSION])
    counts = np.array([np.bincount(c.classes, minlength=24) for c in cells]).reshape(-1, 24)
    normal = (counts[:, :22] == 2).all(axis=1)
    normal &= (counts[:, 22:] == [2, 0]).all(axis=1) | (counts[:, 22:] == [1, 1]).all(axis=1)
    orders = []
    for n in range(number):
        k = n % NUM_CLASSES
        able = np.flatnonzero(normal & (counts[:, k] > 0))
        if len(able):
            chosen = rng.permutation(able)[:RECEIVERS]
            orders.append(Order(gain, k, tuple(int(row) for row in chosen), n))
    # What lies in memory of a case serves its next order.
    return sorted(orders, key=lambda order: str(cells[order.receivers[0]].case_id))


class Workshop:
    """Makes cells to order; the same order always gives the same cell."""

    def __init__(
        self, cells: Sequence[SourceCell], read: Callable[[str], Gray], seed: int = 0
    ) -> None:
        """Takes the cells that orders name by row, and what reads an image by its name."""
        self.cells = list(cells)
        self.read = read
        self.seed = seed
        self._sizes = np.array([_size(cell) for cell in self.cells])
        self._scene = lru_cache(maxsize=_SCENES)(self._look)

    def make(self, order: Order) -> MadeCell | None:
        """Makes one; None if there is no isolated chromosome for it, or no clear place.

        Raises:
            DataError: an image cannot be read.
        """
        rng = np.random.default_rng([self.seed, int(order.gain), order.class_index, order.seed])
        for row in order.receivers:
            scene = self._scene(row)
            if scene is None:
                continue
            if order.gain:
                made = self._gain(order, row, scene, rng)
            else:
                made = self._loss(order, row, scene, rng)
            if made is not None:
                return made
        return None

    def _loss(
        self, order: Order, row: int, scene: Scene, rng: np.random.Generator
    ) -> MadeCell | None:
        for own in _of_class(scene, order.class_index, rng):
            changed = remove(scene, own, rng)
            if changed is not None:
                return MadeCell(order, self.cells[row].name, None, changed)
        return None

    def _gain(
        self, order: Order, row: int, scene: Scene, rng: np.random.Generator
    ) -> MadeCell | None:
        for donor in self._donors(row, order.class_index, rng):
            other = self._scene(donor)
            if other is None:
                continue
            for own in _of_class(other, order.class_index, rng):
                piece = cut_out(other, own)
                changed = insert(scene, piece, rng) if piece is not None else None
                if changed is not None:
                    names = self.cells[row].name, self.cells[donor].name
                    return MadeCell(order, *names, changed)
        return None

    def _donors(self, row: int, k: int, rng: np.random.Generator) -> list[int]:
        """Returns cells with the class: of the same case first, then by the nearest size."""
        case = self.cells[row].case_id
        having = [n for n, cell in enumerate(self.cells) if n != row and (cell.classes == k).any()]
        own = [n for n in having if case is not None and self.cells[n].case_id == case]
        own = [own[int(n)] for n in rng.permutation(len(own))][:OWN_DONORS]
        away = np.abs(np.log(self._sizes / self._sizes[row]))
        others = sorted((n for n in having if n not in own), key=lambda n: (float(away[n]), n))
        return own + others[:OTHER_DONORS]

    def _look(self, row: int) -> Scene | None:
        cell = self.cells[row]
        return look_at(self.read(cell.name), cell.boxes, cell.classes)


def _of_class(scene: Scene, k: int, rng: np.random.Generator) -> list[int]:
    """Returns the rows of isolated chromosomes of a class, in random order."""
    rows = [row for row in scene.isolated if scene.classes[row] == k]
    return [rows[int(n)] for n in rng.permutation(len(rows))]


def _size(cell: SourceCell) -> float:
    if not len(cell.boxes):
        return 1.0
    sides = np.maximum(cell.boxes[:, 2:] - cell.boxes[:, :2], 1)
    return float(np.median(np.sqrt(np.prod(sides, axis=1))))
