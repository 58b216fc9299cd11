"""What a context says of cells that are not whole and normal."""

from __future__ import annotations

import numpy as np
import torch

from deepacc_d2.context import ContextCell
from deepacc_d2.context.steadiness import steadiness, third_homologs
from deepacc_d2.modeling import CellContext
from deepacc_d2.modeling.cell_context import evidence

D, K = 4, 24


def cell(labels: list[int], said: list[int], image: int, case: str = "a") -> ContextCell:
    """A cell whose boxes are surely taken for ``said``."""
    logits = torch.zeros(len(said), K + 1)
    logits[torch.arange(len(said)), torch.tensor(said)] = 9
    known = evidence(torch.ones(len(said), D), logits, logits).half()
    return ContextCell(known, torch.zeros(len(said), 3), torch.tensor(labels), image, case)


def test_what_is_right_is_counted() -> None:
    # Untrained, the context says what the box says.
    context = CellContext(D, K, width=8, layers=1, heads=1)
    cells = [cell([0, 0, 5, K], [0, 1, 5, 7], 1), cell([3], [3], 2, "b")]
    found = steadiness(context, cells, drop=0)
    assert found.whole == found.dropped == (3, 3, 4)
    assert context.training


def test_a_third_homolog_comes_from_another_cell_of_the_case_and_goes_to_a_pair() -> None:
    cells = [
        cell([0, 0, 5, 22, 22], [0, 0, 5, 22, 22], 1),
        cell([0, 5, 22, K], [1, 5, 22, 7], 2),
        cell([0, 0], [0, 0], 3, "alone"),
        cell([0, 0], [0, 0], 4, ""),
    ]
    made = third_homologs(cells, np.random.default_rng(0))
    # Only the first has a pair of an autosome that a relative has: a 1, which is taken for a 2.
    assert len(made) == 1
    together, copies = made[0]
    assert copies == [0, 1, 5]
    assert together.labels[copies].tolist() == [0, 0, 0]
    assert torch.equal(together.known[-1], cells[1].known[0])
    context = CellContext(D, K, width=8, layers=1, heads=1).eval()
    found = steadiness(context, cells)
    assert found.third == found.three == (0, 0, 1)
    assert found.shares()["third"] == {"by_box": 0.0, "in_context": 0.0, "of": 1}


def test_a_context_that_errs_is_reported() -> None:
    context = CellContext(D, K, width=8, layers=1, heads=1).eval()
    context.head.bias.data[4] = 50  # everything a 5
    cells = [cell([4, 4, 0, 0], [4, 4, 0, 0], 1), cell([4, 0], [4, 0], 2)]
    found = steadiness(context, cells, drop=0)
    assert found.whole == (6, 3, 6)
