"""Images and strips for the pages, kept in memory as long as there is room."""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from deepacc_d2.cell import Chromosome
from deepacc_d2.errors import DataError, UserError
from deepacc_d2.karyogram.cut import Cut, cut_cell
from deepacc_d2.karyogram.karyogram import STRIP_SIZE, make_strip, strip_zoom
from deepacc_d2.review.geometry import (
    Halves,
    region_of,
    split_at_waist,
    split_by_line,
    split_by_masks,
)
from deepacc_d2.review.pictures import image_of
from deepacc_d2.review.state import Box, EditError, Outline
from deepacc_d2.review.store.store import ReviewedCell

LONGEST_SHOWN = 4096
"""Longest side of an image that is sent; larger ones are shrunk, boxes stay in their pixels."""

_MOST_AHEAD = 4
_SHOWN_SIZE = 90.0
"""Pixels of a strip that is sent, as the square root of its box's area: enough for sharp screens.

The strip itself is made as for print, so that page and export turn a chromosome alike.
"""

Gray = NDArray[np.uint8]
_T = TypeVar("_T")


class Memory:
    """The values used last, up to a size in bytes; several threads may ask at once."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, Future[Any]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _T], size: Callable[[_T], int]) -> _T:
        """Returns what is kept under a key, or makes and keeps it.

        A value that another thread is making is waited for, so that none is made twice.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                value: _T = self._kept[key][0]
                return value
            waiting = self._making.get(key)
            if waiting is None:
                own: Future[Any] = Future()
                self._making[key] = own
        if waiting is not None:
            result: _T = waiting.result()
            return result
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            own.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._kept[key] = made, size(made)
            self._size += self._kept[key][1]
            while self._size > self._most and len(self._kept) > 1:
                _, (_, freed) = self._kept.popitem(last=False)
                self._size -= freed
        own.set_result(made)
        return made


class Imaging:
    """Reads images, cuts chromosomes and draws strips.

    Attributes:
        roots: folders that images may lie in; empty: wherever a record says.
    """

    def __init__(self, roots: Sequence[Path] = ()) -> None:
        self.roots = tuple(root.resolve() for root in roots)
        self._images = Memory(300_000_000)
        self._sent = Memory(100_000_000)
        self._cuts = Memory(100_000_000)
        self._strips = Memory(50_000_000)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._places = threading.Semaphore(_MOST_AHEAD)

    def prepare(self, cell: ReviewedCell) -> None:
        """Makes a cell's image and strips in the background, before a page asks for them.

        Of many cells asked for at once only a few are prepared: it is a help, not a duty.
        """
        if not self._places.acquire(blocking=False):
            return

        def make() -> None:
            try:
                self.strips(cell)
                self.png(cell)
            except UserError:
                pass  # the page that asks for it shows why
            finally:
                self._places.release()

        self._ahead.submit(make)

    def close(self) -> None:
        """Ends what is prepared in the background."""
        self._ahead.shutdown(wait=False, cancel_futures=True)

    def gray(self, cell: ReviewedCell) -> Gray:
        """Returns a cell's image, uint8 (H, W).

        Raises:
            DataError: it has gone, cannot be read, lies elsewhere than allowed, or is another one.
        """
        key = self._key(cell)
        return self._images.get(key, lambda: image_of(cell), lambda gray: gray.nbytes)

    def _key(self, cell: ReviewedCell) -> tuple[str, int]:
        """Returns what an image is kept under: its path and when it was changed."""
        path = Path(cell.state.prediction.path)
        try:
            real = path.resolve()
            changed = path.stat().st_mtime_ns
        except (OSError, ValueError):
            raise DataError(f"image {path} has gone: put it back to see cell {cell.name}") from None
        if self.roots and not any(real.is_relative_to(root) for root in self.roots):
            raise DataError(f"image {path} lies outside the folders that are shown")
        return str(real), changed

    def png(self, cell: ReviewedCell) -> tuple[bytes, str]:
        """Returns a cell's image as PNG, shrunk where it is very large, and a tag of its content.

        Raises:
            DataError: see :meth:`gray`.
        """
        key = self._key(cell)

        def make() -> bytes:
            gray = self.gray(cell)
            factor = LONGEST_SHOWN / max(gray.shape)
            if factor < 1:
                size = (round(gray.shape[1] * factor), round(gray.shape[0] * factor))
                gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA))
            return cv2.imencode(".png", gray, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()

        return self._sent.get(key, make, len), f'"{abs(hash(key)):x}"'

    def cuts(self, cell: ReviewedCell) -> dict[int, Cut]:
        """Returns the cut of each chromosome by its id.

        Raises:
            DataError: see :meth:`gray`.
        """
        by_id = {c.id: c for c in cell.state.chromosomes}
        ordered = [by_id[number] for number in cell.found.ids]
        shapes = tuple((c.id, c.box, c.outline) for c in ordered)

        def make() -> dict[int, Cut]:
            outlines = {n: c.outline for n, c in enumerate(ordered) if c.outline}
            cuts = cut_cell(self.gray(cell), [c.box for c in ordered], outlines)
            return {c.id: cut for c, cut in zip(ordered, cuts, strict=True)}

        def size(cuts: dict[int, Cut]) -> int:
            return sum(cut.dark.nbytes + cut.mask.nbytes for cut in cuts.values())

        return self._cuts.get((*self._key(cell), shapes), make, size)

    def strips(self, cell: ReviewedCell) -> dict[int, dict[str, Any]]:
        """Returns each chromosome as the karyogram shows it, by its id.

        Returns:
            ``image``: a PNG as a data URL; ``length``, ``width`` in pixels of the image;
            ``centromere`` and ``certain`` (whether its upper arm is), see karyogram.strip.Strip.

        Raises:
            DataError: see :meth:`gray`.
        """
        cuts = self.cuts(cell)
        boxes = [c.box for c in cell.found.cell.chromosomes]
        zoom = strip_zoom(boxes)
        shrink = min(1.0, _SHOWN_SIZE / STRIP_SIZE)
        turned = {c.id for c in cell.state.chromosomes if c.turned}
        made = {}
        for number, chromosome in zip(cell.found.ids, cell.found.cell.chromosomes, strict=True):
            cut = cuts[number]
            key = (*self._key(cell), id(cut), chromosome.name, number in turned, round(zoom, 3))

            def make(
                cut: Cut = cut, chromosome: Any = chromosome, number: int = number
            ) -> dict[str, Any]:
                strip = make_strip(chromosome, cut, zoom, turned=number in turned)
                level = np.round(255 * (1 - np.clip(strip.dark, 0, 1))).astype(np.uint8)
                size = [max(2, round(side * shrink)) for side in level.shape[::-1]]
                level = np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_AREA))
                data = base64.b64encode(cv2.imencode(".png", level)[1].tobytes()).decode()
                return {
                    "cut": cut,  # kept, so that its id is not given to another one
                    "image": f"data:image/png;base64,{data}",
                    "length": round(strip.length, 2),
                    "width": round(strip.width, 2),
                    "centromere": round(strip.centromere, 3),
                    "certain": strip.polarity_confidence >= 0.75,
                }

            kept = self._strips.get(key, make, lambda told: len(told["image"]))
            made[number] = {name: value for name, value in kept.items() if name != "cut"}
        return made

    def split(self, cell: ReviewedCell, chromosome: int, line: Sequence[float] | None) -> Halves:
        """Proposes a split of a chromosome: by a line, or along masks, or at its waist.

        Raises:
            EditError: there is no such chromosome, or it cannot be split so.
            DataError: see :meth:`gray`.
        """
        found = cell.state.find(chromosome)
        cuts = dict(self.cuts(cell))
        cut = region_of(self.gray(cell), found.box, cuts.pop(chromosome), cuts.values())
        if line is not None:
            return split_by_line(cut, line)
        masks = [
            masks_of(each)
            for each in cell.state.prediction.chromosomes
            if _share_within(each.box, found.box) > 0.5
        ]
        try:
            return split_by_masks(cut, masks)
        except EditError:
            return split_at_waist(cut)


def masks_of(chromosome: Chromosome) -> Sequence[Outline]:
    """Returns the rings of a predicted chromosome's mask, none where the model has no masks."""
    mask = getattr(chromosome, "mask", None)
    return () if mask is None else tuple(mask.rings)


def _share_within(box: Box, other: Box) -> float:
    """Returns the share of a box's area that is in another one."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(width, 0.0) * max(height, 0.0) / max(area, 1e-9)
