"""Cells disturbed at random, and padded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.context import ContextCell, Disturbance, disturbed, pad_cells
from deepacc_d2.context.batches import IGNORED
from deepacc_d2.errors import ConfigError

E = 5


def cell(n: int, first: int = 0) -> ContextCell:
    """A cell whose entries tell which box they are of."""
    rows = torch.arange(first, first + n)
    known = rows[:, None].half().repeat(1, E)
    return ContextCell(known, rows[:, None].float().repeat(1, 3), rows % 24, image_id=first)


def test_without_disturbance_a_cell_stays() -> None:
    settings = Disturbance(drop=0, insert=0)
    found = disturbed(cell(46), [cell(46, 100)], np.random.default_rng(0), settings)
    assert torch.equal(found.known, cell(46).known)
    assert torch.equal(found.labels, cell(46).labels)


def test_the_mean_share_is_dropped_and_rows_stay_together() -> None:
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(400):
        found = disturbed(cell(46), [], rng, Disturbance(drop=0.2, insert=0))
        rows = found.known[:, 0].long()
        assert torch.equal(found.labels, rows % 24)
        assert torch.equal(found.shapes[:, 0].long(), rows)
        assert torch.equal(rows, rows.sort().values)
        sizes.append(len(found))
    assert 1 - np.mean(sizes) / 46 == pytest.approx(0.2, abs=0.02)
    assert max(sizes) == 46  # some cells are whole


def test_chromosomes_of_a_relative_are_added_under_their_own_class() -> None:
    rng = np.random.default_rng(0)
    relative = cell(30, 1000)
    relative.labels[5:] = NUM_CLASSES  # on no chromosome: never added
    numbers = []
    for _ in range(300):
        found = disturbed(cell(10), [relative], rng, Disturbance(drop=0, insert=1))
        added = found.known[10:, 0].long() - 1000
        assert (added < 5).all()
        assert len(set(added.tolist())) == len(added)
        assert torch.equal(found.labels[10:], relative.labels[added])
        numbers.append(len(added))
    assert set(numbers) == {1, 2, 3}


def test_padding() -> None:
    known, shapes, hidden, labels = pad_cells([cell(3), cell(1, 7), cell(0)])
    assert known.shape == (3, 4, E)
    assert hidden.sum(dim=1).tolist() == [1, 3, 4]
    assert labels.tolist()[1] == [7, IGNORED, IGNORED, IGNORED]
    assert known[0, :3, 0].tolist() == [0, 1, 2]
    # less the cell's median
    assert shapes[0, :, 0].tolist() == [-1, 0, 1, 0]
    assert shapes[1, 0, 0] == 0


@pytest.mark.parametrize("options", [{"drop": 0.7}, {"insert": -1}, {"most_inserted": 0}])
def test_bad_numbers_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="context"):
        Disturbance(**options)  # type: ignore[arg-type]
