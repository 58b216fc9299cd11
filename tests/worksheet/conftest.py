from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.karyotype.iscn import parse_karyotype


def made_cell(name: str, iscn: str, confidence: float = 0.9) -> Cell:
    p = np.full(25, 1 / 25)
    found = [
        Chromosome((0.0, 0.0, 9.0, 20.0), p, int(k), int(k), 0.9)
        for k in np.repeat(np.arange(24), parse_karyotype(iscn))
    ]
    return Cell(name, "", 10, 10, found, iscn, iscn, confidence, case_id="7")


@pytest.fixture
def make_cell() -> Callable[..., Cell]:
    """Makes a cell of a karyotype."""
    return made_cell
