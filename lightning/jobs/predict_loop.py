"""The parts that Lightning's predict is made of: images in, cells through, files out."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import Dataset

from deepacc_d2.cell import Cell
from deepacc_d2.errors import UserError
from deepacc_d2.images.read import read_image
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import View, ViewSettings, make_view
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.inputs import Input
from deepacc_d2.prediction.outputs import write_cell
from deepacc_d2.prediction.predictor import Predictor
from deepacc_lightning.core.orphans import end_with_parent

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


class ImageFiles(Dataset[Loaded]):
    """Reads images and makes their views; a bad file gives its error, not an exception."""

    def __init__(self, items: Sequence[Input], view: ViewSettings) -> None:
        self.items = list(items)
        self.view = view

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Loaded:
        """Reads one image."""
        item = self.items[index]
        try:
            gray = read_image(item.path).gray
            return Loaded(item, gray, make_view(gray, self.view))
        except UserError as error:
            return Loaded(item, error=str(error))
        except MemoryError:
            return Loaded(item, error=f"image {item.path} needs more memory than there is")


def one_image(batch: list[Loaded]) -> Loaded:
    """Collates a batch of one: images differ in size, and centers are an image's own."""
    (loaded,) = batch
    return loaded


class PredictModule(pl.LightningModule):
    """A predictor as Lightning moves and calls it."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def on_predict_start(self) -> None:
        """Moves the detector to this process's device."""
        self.predictor.detector.to(self.device)

    def transfer_batch_to_device(
        self, batch: Loaded, device: torch.device, dataloader_idx: int
    ) -> Loaded:
        """Leaves the batch alone: the detector moves what it needs."""
        return batch

    def predict_step(self, batch: Loaded, batch_idx: int) -> Cell | None:
        """Returns the cell in an image, or None where it could not be read."""
        if batch.gray is None:
            return None
        item = batch.item
        return self.predictor.cell(
            batch.gray,
            name=item.name,
            path=str(item.path),
            case_id=item.case_id,
            view=batch.view,
        )


class CellWriter(Callback):
    """Draws and writes each cell as it comes, in processes of its own; a context manager.

    Args:
        folder: the job's.
        drawings: what to draw, as :func:`write_cell` takes it.
        workers: drawing processes; 0 draws in this one.

    Attributes:
        errors: path and message of each image that could not be used.
    """

    def __init__(
        self, folder: OutputFolder, drawings: Mapping[str, Any], *, workers: int = 1
    ) -> None:
        self.folder = folder
        self.options: dict[str, Any] = dict(drawings)
        self.workers = workers
        self.errors: list[tuple[str, str]] = []
        self._pool: ProcessPoolExecutor | None = None
        self._room = BoundedSemaphore(max(1, workers) * WAITING + workers)
        self._pending: dict[Future[str], str] = {}

    def __enter__(self) -> CellWriter:
        if self.workers > 0:
            # A fork would copy torch's threads in whatever state they are.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, initializer=_begin_drawing)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            # After Ctrl-C what has not begun is dropped; without a record it is done again.
            self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        self._collect()

    def on_predict_batch_end(  # noqa: PLR0917 - Lightning calls it so
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Loaded,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hands a cell over to be drawn; waits while too many are in hand."""
        if batch.gray is None or outputs is None:
            self.errors.append((str(batch.item.path), batch.error))
            return
        path = str(batch.item.path)
        if self._pool is None:
            problem = draw(self.folder, batch.gray, outputs, self.options)
            if problem:
                self.errors.append((path, problem))
            return
        self._room.acquire()
        future = self._pool.submit(draw, self.folder, batch.gray, outputs, self.options)
        future.add_done_callback(lambda _: self._room.release())
        self._pending[future] = path
        self._collect(finished=True)

    def _collect(self, *, finished: bool = False) -> None:
        for future in [f for f in self._pending if f.done() or not finished]:
            path = self._pending.pop(future)
            if future.cancelled():
                continue
            problem = future.result()
            if problem:
                self.errors.append((path, problem))

    def all_errors(self, trainer: pl.Trainer) -> list[tuple[str, str]]:
        """Returns the errors of all processes, in each of them, once all have written."""
        if trainer.world_size == 1:
            return self.errors
        found: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(found, self.errors)
        return [error for part in found for error in part]


def _begin_drawing() -> None:
    import cv2

    end_with_parent()
    # Both are the main process's business, which waits for what is being drawn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def draw(folder: OutputFolder, gray: Gray, cell: Cell, options: dict[str, Any]) -> str:
    """Writes a cell.

    Returns:
        What went wrong in one line; empty if all is well. One cell never ends a job.
    """
    try:
        write_cell(folder, gray, cell, **options)
    except OSError as error:
        return f"its results cannot be written ({error.strerror or error}): free some space"
    except Exception as error:  # a bug that one picture shows must not stop thousands
        return f"it cannot be drawn ({type(error).__name__}: {error}): please report this"
    return ""
