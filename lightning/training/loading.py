"""Loaders of training images that can be put anywhere into a training.

What an image looks like when it is drawn depends on seed, epoch and image alone (and, where an
epoch sees it several times, on which time it is): not on which process or loader worker draws it,
nor on what was drawn before. So the same images make the same step however they are shared out, and
a training that resumes in the middle of an epoch sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.worker_loader import WorkerLoader


class Draw(NamedTuple):
    """An image in an epoch, for the first (0), second, ... time."""

    index: int  # type: ignore[assignment]  # of tuples it is a method, which is not used
    epoch: int
    time: int = 0


class EpochDraws:
    """What an epoch draws of images that are in parts with weights.

    A part of n images and weight w gives round(w * n) draws: each image floor(w) times, and what is
    left to different images that seed and epoch choose.

    Args:
        parts: number of images and weight of each part; images are numbered part after part.
        seed: of the training.
    """

    def __init__(self, parts: Sequence[tuple[int, float]], seed: int) -> None:
        self.parts = [(size, int(size * weight + 0.5)) for size, weight in parts]
        self.seed = seed

    def __len__(self) -> int:
        return sum(draws for _, draws in self.parts)

    def of_epoch(self, epoch: int) -> list[Draw]:
        """Returns the draws of an epoch, part after part."""
        found: list[Draw] = []
        start = 0
        for number, (size, draws) in enumerate(self.parts):
            times, rest = divmod(draws, size) if size else (0, 0)
            found += [Draw(start + i, epoch, t) for t in range(times) for i in range(size)]
            # The parts' choices must not look alike, nor depend on each other's sizes.
            source = np.random.SeedSequence([self.seed, epoch], spawn_key=(number,))
            chosen = np.random.default_rng(source).permutation(size)[:rest]
            found += [Draw(start + int(i), epoch, times) for i in sorted(chosen)]
            start += size
        return found


class DrawSampler(Sampler[Draw]):
    """Adds the epoch to the indices of another sampler, and can begin within an epoch.

    Args:
        order: gives the indices of an epoch; has ``set_epoch``.
        draws: what is drawn that the indices count; null where they count images.
        repeat: draws what the first epoch draws in every one, to overfit a few batches.
    """

    def __init__(
        self, order: Sampler[int], draws: EpochDraws | None = None, *, repeat: bool = False
    ) -> None:
        self.order = order
        self.draws = draws
        self.repeat = repeat
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch
        self.order.set_epoch(self.drawn)  # type: ignore[attr-defined]

    @property
    def drawn(self) -> int:
        """The epoch whose images are drawn."""
        return 0 if self.repeat else self.epoch

    def __iter__(self) -> Iterator[Draw]:
        draws = None if self.draws is None else self.draws.of_epoch(self.drawn)
        for position, index in enumerate(self.order):
            if position >= self.start:
                yield Draw(int(index), self.drawn) if draws is None else draws[index]

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
        again = [draw.time] if draw.time else []
        source = np.random.SeedSequence([self.seed, draw.epoch, draw.index, *again])
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


class ResumableLoader(WorkerLoader):
    """A loader that says where it stands and can begin there, as Lightning asks of loaders.

    Its sampler is a :class:`DrawSampler`; it drops the last batch if that is not full.

    Args:
        pool: batches whose items are shared out anew by size, as Detectron2's aspect ratio
            grouping does, so that less of a step is padding. Items are then dicts with an
            ``image`` (C, H, W). 1 leaves batches as they are drawn.
    """

    done = 0
    """Batches of this epoch that were given out."""

    def __init__(self, *args: Any, pool: int = 1, **options: Any) -> None:
        if pool < 1:
            raise ConfigError(f"batch_pool={pool}: give 1 (off) or more batches")
        super().__init__(*args, **options)
        self.pool = pool

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        given = self.sampler.start // self.batch_size  # type: ignore[attr-defined]
        # A pool is drawn as a whole, also where a training resumes within it.
        first = given - given % self.pool
        self.sampler.start = first * self.batch_size  # type: ignore[attr-defined]
        self.done = first
        drawn = super().__iter__()
        while batches := list(islice(drawn, self.pool)):
            for batch in self._pooled(batches):
                self.done += 1
                if self.done > given:
                    yield batch

    def _pooled(self, batches: list[Any]) -> list[Any]:
        """Shares the items of batches out by size; in an order that the epoch and place choose."""
        if self.pool == 1 or len(batches) == 1:
            return batches

        def shape(item: dict[str, Any]) -> tuple[bool, int]:
            height, width = item["image"].shape[-2:]
            # From large to small upright ones, then from small to large wide ones.
            return height <= width, height * width * (1 if height <= width else -1)

        items = sorted((item for batch in batches for item in batch), key=shape)
        size = len(batches[0])
        epoch = self.sampler.drawn  # type: ignore[attr-defined]
        order = np.random.default_rng([epoch, self.done]).permutation(len(batches))
        return [items[i * size : (i + 1) * size] for i in order]

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
