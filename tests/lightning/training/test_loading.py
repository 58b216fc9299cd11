from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.worker_loader import identity
from deepacc_lightning.training.loading import (
    Draw,
    DrawnDataset,
    DrawSampler,
    EpochDraws,
    ResumableLoader,
)
from deepacc_lightning.training.random_state import rng_states, set_rng_states


class Noise(Dataset):
    """Items that show which random numbers an augmentation would draw."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, "noise": np.random.uniform()}  # noqa: NPY002


# Images 0 to 3 twice, of 4 to 8 a half (three of five), 9 and 10 once.
PARTS = ((4, 2.0), (5, 0.5), (2, 1.0))


def _loader(
    *,
    batch: int = 2,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    parts: tuple[tuple[int, float], ...] = (),
) -> ResumableLoader:
    draws = EpochDraws(parts, seed=5) if parts else None
    counted = Noise() if draws is None else draws
    order = DistributedSampler(counted, num_replicas=ranks, rank=rank, seed=5, drop_last=True)
    return ResumableLoader(
        DrawnDataset(Noise(), seed=5),
        sampler=DrawSampler(order, draws),
        batch_size=batch,
        drop_last=True,
        collate_fn=identity,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _epoch(loader: ResumableLoader, epoch: int) -> list[list[tuple[int, float, int]]]:
    loader.sampler.set_epoch(epoch)
    return [[(x["index"], x["noise"], x["seed"]) for x in batch] for batch in loader]


def test_each_image_once_an_epoch_in_an_order_of_its_own() -> None:
    loader = _loader()
    epochs = [[x[0] for batch in _epoch(loader, e) for x in batch] for e in range(3)]
    assert all(len(set(e)) == len(e) == 10 for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3


def test_an_epoch_has_its_own_noise_and_gives_it_again() -> None:
    loader = _loader()
    first, second = _epoch(loader, 0), _epoch(loader, 1)
    assert {x[1] for b in first for x in b}.isdisjoint({x[1] for b in second for x in b})
    assert {x[2] for b in first for x in b}.isdisjoint({x[2] for b in second for x in b})
    assert _epoch(_loader(), 1) == second


def test_workers_do_not_matter() -> None:
    loader = _loader(workers=2)
    plain = _loader()
    for epoch in range(2):
        assert _epoch(loader, epoch) == _epoch(plain, epoch)


def test_processes_share_the_batches_of_one() -> None:
    shares = [_epoch(_loader(batch=1, rank=r, ranks=2), 3) for r in range(2)]
    one = _epoch(_loader(batch=2), 3)
    assert len(shares[0]) == len(shares[1]) == len(one) == 5
    for step, batch in enumerate(one):
        assert sorted(batch) == sorted(shares[0][step] + shares[1][step])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("done", [0, 1, 4])
def test_goes_on_within_an_epoch(done: int, workers: int) -> None:
    wanted = _epoch(_loader(), 1) + _epoch(_loader(), 2)
    loader = _loader(workers=workers)
    loader.sampler.set_epoch(1)
    batches = iter(loader)
    for _ in range(done):
        next(batches)
    state = loader.state_dict()
    assert state == {"epoch": 1, "batches": done}

    other = _loader(workers=workers)
    other.load_state_dict(state)
    assert len(other) == 5
    # Lightning sets the epoch again before it starts, and then the next one.
    found = _epoch(other, 1) + _epoch(other, 2)
    assert found == wanted[done:]


def test_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    loader = _loader()
    _epoch(loader, 4)
    assert loader.state_dict() == {"epoch": 5, "batches": 0}


def test_an_epoch_draws_by_weight() -> None:
    loader = _loader(batch=1, parts=PARTS)
    halves = []
    for epoch in range(4):
        seen = Counter(x[0] for batch in _epoch(loader, epoch) for x in batch)
        half = {index for index in seen if 4 <= index < 9}
        assert seen == {**dict.fromkeys(range(4), 2), **dict.fromkeys({*half, 9, 10}, 1)}
        assert len(half) == 3
        halves.append(frozenset(half))
    assert len(set(halves)) > 1
    assert len(loader) == 8 + 3 + 2


def test_an_image_seen_twice_looks_different_and_the_first_time_as_without_weights() -> None:
    twice = [x for b in _epoch(_loader(batch=1, parts=((11, 2.0),)), 3) for x in b]
    once = [x for b in _epoch(_loader(batch=1), 3) for x in b]
    assert set(once) < set(twice)
    assert len({x[1] for x in twice}) == len({x[2] for x in twice}) == len(twice) == 22


def test_weights_of_one_change_nothing() -> None:
    parts = ((4, 1.0), (7, 1.0))
    assert [_epoch(_loader(parts=parts), e) for e in range(2)] == [
        _epoch(_loader(), e) for e in range(2)
    ]


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_a_weighted_epoch(ranks: int) -> None:
    shares = [_epoch(_loader(batch=1, rank=r, ranks=ranks, parts=PARTS), 2) for r in range(ranks)]
    one = _epoch(_loader(batch=ranks, parts=PARTS), 2)
    for step, batch in enumerate(one):
        assert sorted(batch) == sorted(x for share in shares for x in share[step])


def test_goes_on_within_a_weighted_epoch() -> None:
    wanted = _epoch(_loader(parts=PARTS), 1) + _epoch(_loader(parts=PARTS), 2)
    other = _loader(parts=PARTS, workers=1)
    other.load_state_dict({"epoch": 1, "batches": 4})
    assert _epoch(other, 1) + _epoch(other, 2) == wanted[4:]


def test_weights_round_to_whole_images_and_parts_choose_for_themselves() -> None:
    draws = EpochDraws([(3, 0.5), (0, 2.0), (8, 2.25), (8, 0.0), (8, 0.5), (8, 0.5)], seed=1)
    assert len(draws) == 2 + 0 + 18 + 0 + 4 + 4 == len(draws.of_epoch(7))
    found = draws.of_epoch(7)
    assert (
        sorted(Counter(d.index for d in found if 3 <= d.index < 11).values()) == [2] * 6 + [3] * 2
    )
    assert sum(d.time == 2 for d in found) == 2
    halves = [
        {tuple(d.index - first for d in draws.of_epoch(e) if first <= d.index < first + 8)}
        for e in range(3)
        for first in (19, 27)
    ]
    assert len(set.union(*halves)) > 3


def test_numpys_stream_is_left_where_it_was() -> None:
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.uniform(size=2).tolist()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    found = [np.random.uniform()]  # noqa: NPY002
    DrawnDataset(Noise(), seed=0)[Draw(3, 0)]
    found.append(np.random.uniform())  # noqa: NPY002
    assert found == expected


def _numbers() -> list[float]:
    return [random.random(), float(np.random.uniform()), float(torch.rand(()))]  # noqa: NPY002


def test_random_states_survive_a_safe_file(tmp_path: Any) -> None:
    _numbers()
    torch.save(rng_states(), tmp_path / "states")
    expected = _numbers() + _numbers()
    torch.manual_seed(99)
    set_rng_states(torch.load(tmp_path / "states", weights_only=True))
    assert _numbers() + _numbers() == expected


class Sized(Dataset):
    """Images of which each has a size of its own, drawn at random."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, index: int) -> dict[str, Any]:
        height, width = np.random.randint(8, 200, 2)  # noqa: NPY002
        return {"index": index, "image": torch.zeros(1, int(height), int(width))}


def _pooled(pool: int, epoch: int, start: int = 0) -> list[list[tuple[int, tuple[int, ...]]]]:
    order = DistributedSampler(Sized(), num_replicas=1, rank=0, seed=5, drop_last=True)
    loader = ResumableLoader(
        DrawnDataset(Sized(), seed=5),
        sampler=DrawSampler(order),
        batch_size=2,
        drop_last=True,
        collate_fn=identity,
        pool=pool,
    )
    loader.load_state_dict({"epoch": epoch, "batches": start})
    batches = [[(x["index"], tuple(x["image"].shape[1:])) for x in batch] for batch in loader]
    assert loader.state_dict() == {"epoch": epoch + 1, "batches": 0}
    return batches


def _padded(batches: list[list[tuple[int, tuple[int, ...]]]]) -> int:
    return sum(len(b) * max(x[1][0] for x in b) * max(x[1][1] for x in b) for b in batches)


def test_a_pool_shares_the_same_images_out_with_less_padding() -> None:
    plain, pooled = _pooled(1, 0), _pooled(4, 0)
    assert len(plain) == len(pooled) == 11
    # The same images as drawn, pool by pool; the last pool has three batches.
    for first in (0, 4, 8):
        drawn = sorted(x for batch in plain[first : first + 4] for x in batch)
        assert sorted(x for batch in pooled[first : first + 4] for x in batch) == drawn
    assert _padded(pooled) < 0.9 * _padded(plain)
    assert _pooled(4, 1) != pooled


@pytest.mark.parametrize("start", [1, 4, 6, 10])
def test_a_training_resumes_within_a_pool(start: int) -> None:
    assert _pooled(4, 2, start) == _pooled(4, 2)[start:]


def test_a_pool_of_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_pool=0"):
        _pooled(0, 0)
