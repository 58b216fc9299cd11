"""The parts that Lightning's predict is made of: images in, cells through, files out.

Three stages work at the same time. Lanes, which are threads, read images and run the network;
processes draw; between them this process keeps the order and holds no more than a few images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import Dataset

from deepacc_d2.cell import Cell
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.images.read import read_image
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import View, ViewSettings, make_view
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.inputs import Input
from deepacc_d2.prediction.outputs import draw
from deepacc_d2.prediction.predictor import Predictor
from deepacc_lightning.jobs.drawing import drawing_pool
from deepacc_lightning.jobs.lanes import Lanes

# Images that wait for a drawing process: enough to keep it busy, few enough for the memory.
WAITING = 2


@dataclass
class Loaded:
    """An image that was read, or why it was not.

    Attributes:
        item: which.
        gray: uint8 (H, W); None after an error.
        view: what the network is shown.
        error: one line; empty if all is well.
    """

    item: Input
    gray: Gray | None = None
    view: View | None = None
    error: str = ""


class Predicted(NamedTuple):
    """An image and what is in it.

    Attributes:
        loaded: the image.
        cell: None where it could not be read.
    """

    loaded: Loaded
    cell: Cell | None


def load(item: Input, view: ViewSettings) -> Loaded:
    """Reads an image and makes its view; a bad file gives its error, not an exception."""
    try:
        gray = read_image(item.path).gray
        return Loaded(item, gray, make_view(gray, view))
    except UserError as error:
        return Loaded(item, error=str(error))
    except MemoryError:
        return Loaded(item, error=f"image {item.path} needs more memory than there is")


class ImageFiles(Dataset[Loaded]):
    """Images, read by the processes of a loader."""

    def __init__(self, items: Sequence[Input], view: ViewSettings) -> None:
        self.items = list(items)
        self.view = view

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Loaded:
        """Reads one image."""
        return load(self.items[index], self.view)


class ImageNames(Dataset[Input]):
    """Images that are not read yet: the lanes do it."""

    def __init__(self, items: Sequence[Input]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Input:
        """Names one image."""
        return self.items[index]


def one_image(batch: list[Any]) -> Any:
    """Collates a batch of one: images differ in size, and centers are an image's own."""
    (loaded,) = batch
    return loaded


class PredictModule(pl.LightningModule):
    """A predictor as Lightning moves and calls it.

    Args:
        predictor: finds the cells.
        lanes: what its images go through.
    """

    def __init__(self, predictor: Predictor, lanes: Lanes) -> None:
        super().__init__()
        self.predictor = predictor
        self.lanes = lanes

    def on_predict_start(self) -> None:
        """Moves the detector to this process's device."""
        self.predictor.detector.to(self.device)

    def transfer_batch_to_device(
        self, batch: Input | Loaded, device: torch.device, dataloader_idx: int
    ) -> Input | Loaded:
        """Leaves the batch alone: the detector moves what it needs."""
        return batch

    def predict_step(self, batch: Input | Loaded, batch_idx: int) -> Future[Predicted]:
        """Sends an image through the next free lane."""
        return self.lanes.submit(predict_image, self.predictor, batch)


def predict_image(predictor: Predictor, image: Input | Loaded) -> Predicted:
    """Returns the cell in an image, which is read first where that was not done."""
    loaded = load(image, predictor.detector.view) if isinstance(image, Input) else image
    if loaded.gray is None:
        return Predicted(loaded, None)
    item = loaded.item
    cell = predictor.cell(
        loaded.gray,
        name=item.name,
        path=str(item.path),
        case_id=item.case_id,
        view=loaded.view,
    )
    return Predicted(loaded, cell)


class CellWriter(Callback):
    """Draws and writes each cell as it comes, in processes of its own; a context manager.

    Args:
        folder: the job's.
        drawings: what to draw, as :func:`write_cell` takes it.
        workers: drawing processes; 0 draws in this one.
        ahead: images that may be in the lanes.

    Attributes:
        errors: path and message of each image that could not be used.
    """

    def __init__(
        self,
        folder: OutputFolder,
        drawings: Mapping[str, Any],
        *,
        workers: int = 1,
        ahead: int = 1,
    ) -> None:
        self.folder = folder
        self.options: dict[str, Any] = dict(drawings)
        self.workers = workers
        self.ahead = ahead
        self.errors: list[tuple[str, str]] = []
        self._pool: ProcessPoolExecutor | None = None
        self._room = BoundedSemaphore(max(1, workers) * WAITING + workers)
        self._coming: deque[Future[Predicted]] = deque()
        self._drawn: dict[Future[str], str] = {}

    def __enter__(self) -> CellWriter:
        if self.workers > 0:
            self._pool = drawing_pool(self.workers)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._pool is not None:
            # After Ctrl-C what has not begun is dropped; without a record it is done again.
            self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        self._collect()

    def on_predict_batch_end(  # noqa: PLR0917 - Lightning calls it so
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Input | Loaded,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hands cells over to be drawn in the images' order; waits while too many are in hand."""
        self._coming.append(outputs)
        while self._coming and (len(self._coming) > self.ahead or self._coming[0].done()):
            self._hand_over(self._coming.popleft().result())

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hands over what is still in the lanes."""
        while self._coming:
            self._hand_over(self._coming.popleft().result())

    def _hand_over(self, predicted: Predicted) -> None:
        loaded, path = predicted.loaded, str(predicted.loaded.item.path)
        if loaded.gray is None or predicted.cell is None:
            self.errors.append((path, loaded.error))
            return
        if self._pool is None:
            problem = draw(self.folder, loaded.gray, predicted.cell, self.options)
            if problem:
                self.errors.append((path, problem))
            return
        self._room.acquire()
        try:
            future = self._pool.submit(draw, self.folder, loaded.gray, predicted.cell, self.options)
        except BrokenProcessPool as error:
            raise _killed(self.folder) from error
        future.add_done_callback(lambda _: self._room.release())
        self._drawn[future] = path
        self._collect(finished=True)

    def _collect(self, *, finished: bool = False) -> None:
        for future in [f for f in self._drawn if f.done() or not finished]:
            path = self._drawn.pop(future)
            if future.cancelled():
                continue
            try:
                problem = future.result()
            except BrokenProcessPool as error:
                raise _killed(self.folder) from error
            if problem:
                self.errors.append((path, problem))

    def all_errors(self, trainer: pl.Trainer) -> list[tuple[str, str]]:
        """Returns the errors of all processes, in each of them, once all have written."""
        if trainer.world_size == 1:
            return self.errors
        found: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(found, self.errors)
        return [error for part in found for error in part]


def _killed(folder: OutputFolder) -> ConfigError:
    return ConfigError(
        "a drawing process was killed, perhaps for want of memory: run the same command again to "
        f"continue {folder.root}, with draw_workers=1 if it happens again"
    )
