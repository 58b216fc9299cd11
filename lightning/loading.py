"""Loaders of training images that can be put anywhere into a training.

What an image looks like when it is drawn depends on seed, epoch and image alone: not on which
process or loader worker draws it, nor on what was drawn before. So the same images make the same
step however they are shared out, and a training that goes on in the middle of an epoch sees what
it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler


class Draw(NamedTuple):
    """An image in an epoch."""

    index: int
    epoch: int


class DrawSampler(Sampler[Draw]):
    """Adds the epoch to the indices of another sampler, and can begin within an epoch.

    Args:
        order: gives the indices of an epoch; has ``set_epoch``.
    """

    def __init__(self, order: Sampler[int]) -> None:
        self.order = order
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch
        self.order.set_epoch(epoch)  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Draw]:
        for position, index in enumerate(self.order):
            if position >= self.start:
                yield Draw(int(index), self.epoch)

    def __len__(self) -> int:
        # Of a whole epoch: Lightning counts the batches done before the start itself.
        return len(self.order)  # type: ignore[arg-type]


class DrawnDataset(Dataset):
    """Items of a data set by :class:`Draw`, with random numbers seeded by it.

    Args:
        dataset: whose items are dicts; what is random in them comes from NumPy's global stream, as
            in Detectron2's augmentations.
        seed: of the training.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """Returns the item with a ``seed`` for what the model draws at random."""
        source = np.random.SeedSequence([self.seed, draw.epoch, draw.index])
        augmentation, model = source.generate_state(2)
        with numpy_seed(int(augmentation)):
            item = self.dataset[draw.index]
        return {**item, "seed": int(model)}


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seeds NumPy's global stream, and puts it back where it was."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


class ResumableLoader(DataLoader):
    """A loader that says where it stands and can begin there, as Lightning asks of loaders.

    Its sampler is a :class:`DrawSampler`; it drops the last batch if that is not full.
    """

    done = 0
    """Batches of this epoch that were given out."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.done = self.sampler.start // self.batch_size  # type: ignore[attr-defined, operator]
        for batch in super().__iter__():
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and the number of its batches that are done."""
        epoch = self.sampler.epoch  # type: ignore[attr-defined]
        if self.done >= len(self):
            return {"epoch": epoch + 1, "batches": 0}
        return {"epoch": epoch, "batches": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration begin where another loader stood."""
        sampler = self.sampler
        sampler.set_epoch(state["epoch"])  # type: ignore[attr-defined]
        sampler.start = state["batches"] * self.batch_size  # type: ignore[attr-defined, operator]
