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
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import DataError, UserError
from deepacc_d2.karyogram.cut import Cut, cut_cell
from deepacc_d2.karyogram.karyogram import STRIP_SIZE, make_strips, outlines_of, strip_zoom
from deepacc_d2.karyogram.strip import Strip
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

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keeps a value; one that is there already stays."""
        self.get(key, lambda: value, lambda _: size)

    def find(self, key: Hashable) -> Any:
        """Returns what is kept under a key, None where nothing is."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

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
        roots: folders that images may be in; empty: anywhere.
    """

    def __init__(self, roots: Sequence[Path] = ()) -> None:
        self.roots = tuple(root.resolve() for root in roots)
        self._images = Memory(300_000_000)
        self._sent = Memory(100_000_000)
        self._cuts = Memory(100_000_000)
        self._strips = Memory(50_000_000)
        # Of a few batches at most: what several requests are waiting for.
        self._batches = Memory(4)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._places = threading.Semaphore(_MOST_AHEAD)

    def warm_up(self) -> None:
        """Loads in the background what the first page would have to wait for."""
        mask = np.zeros((60, 20), bool)
        mask[5:55, 5:15] = True
        cut = Cut(0, 0, mask.astype(np.float32), mask, whole=False)
        odds = np.full(NUM_CLASSES + 1, 1 / (NUM_CLASSES + 1))
        chromosome = Chromosome((0.0, 0.0, 20.0, 60.0), odds, 0, 0, 0.5)
        self._ahead.submit(make_strips, [(chromosome, cut, False)], 1.0)

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
            DataError: it is missing, cannot be read, is outside the allowed folders, or is
                another one.
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
            raise DataError(
                f"image {path} is missing: put it back to see cell {cell.name}"
            ) from None
        if self.roots and not any(real.is_relative_to(root) for root in self.roots):
            raise DataError(f"image {path} is outside the folders that are shown")
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
            drawn = {n: (c.outline,) for n, c in enumerate(ordered) if c.outline}
            outlines = {**outlines_of(cell.found.cell), **drawn}
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
        zoom = strip_zoom([c.box for c in cell.found.cell.chromosomes])
        turned = {c.id for c in cell.state.chromosomes if c.turned}
        image = self._key(cell)
        pieces: dict[Hashable, tuple[Chromosome, Cut, bool]] = {}
        keys: dict[int, Hashable] = {}
        for number, chromosome in zip(cell.found.ids, cell.found.cell.chromosomes, strict=True):
            piece = (chromosome, cuts[number], number in turned)
            keys[number] = (*image, id(piece[1]), chromosome.name, piece[2], round(zoom, 3))
            pieces[keys[number]] = piece
        held = {key: self._strips.find(key) for key in pieces}
        missing = tuple(key for key, strip in held.items() if strip is None)

        def make() -> dict[Hashable, dict[str, Any]]:
            drawn = make_strips([pieces[key] for key in missing], zoom)
            # The cut is kept too, so that its id is not given to another one.
            return {
                key: {"cut": pieces[key][1], **_shown(strip)}
                for key, strip in zip(missing, drawn, strict=True)
            }

        new = self._batches.get(missing, make, lambda told: 1) if missing else {}
        made = {}
        for number, key in keys.items():
            kept: dict[str, Any] = held[key] or new[key]
            self._strips.put(key, kept, len(kept["image"]))
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


def _shown(strip: Strip) -> dict[str, Any]:
    """Returns a strip as pages take it; see :meth:`Imaging.strips`."""
    level = np.round(255 * (1 - np.clip(strip.dark, 0, 1))).astype(np.uint8)
    shrink = min(1.0, _SHOWN_SIZE / STRIP_SIZE)
    size = [max(2, round(side * shrink)) for side in level.shape[::-1]]
    level = np.asarray(cv2.resize(level, size, interpolation=cv2.INTER_AREA))
    data = base64.b64encode(cv2.imencode(".png", level)[1].tobytes()).decode()
    return {
        "image": f"data:image/png;base64,{data}",
        "length": round(strip.length, 2),
        "width": round(strip.width, 2),
        "centromere": round(strip.centromere, 3),
        "certain": strip.polarity_confidence >= 0.75,
    }


def masks_of(chromosome: Chromosome) -> Sequence[Outline]:
    """Returns the rings of a predicted chromosome's mask, none where the model has no masks."""
    return () if chromosome.mask is None else chromosome.mask.rings


def _share_within(box: Box, other: Box) -> float:
    """Returns the share of a box's area that is in another one."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(width, 0.0) * max(height, 0.0) / max(area, 1e-9)
