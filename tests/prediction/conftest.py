"""A detector small enough to run in a blink, with weights that give some chromosomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deepacc_d2.cell import LEFT_OUT, Cell, Chromosome
from deepacc_d2.checkpoint import build_from_checkpoint
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.karyotype.iscn import format_karyotype


@pytest.fixture(scope="session")
def tiny_detector(make_content: Callable[..., dict[str, Any]]) -> TorchDetector:
    """A tiny DeepACC."""
    return TorchDetector(build_from_checkpoint(make_content(), "tiny.ckpt"))


def some_cell(name: str = "a", case_id: str | None = None, seed: int = 0) -> Cell:
    """Returns a cell of four chromosomes, one of which is left out."""
    rng = np.random.default_rng(seed)
    chromosomes = []
    for n, assigned in enumerate((0, 0, 22, LEFT_OUT)):
        p = rng.dirichlet(np.ones(25))
        label = int(p[:24].argmax())
        box = (10.0 * n, 5.0, 10.0 * n + 8.25, 40.5)
        flags = ("touching",) if n == 1 else ()
        chromosomes.append(Chromosome(box, p, label, assigned, float(p.max()), flags))
    return Cell(
        name=name,
        path=f"slides/{name}.tif",
        width=300,
        height=200,
        chromosomes=chromosomes,
        karyotype=format_karyotype(np.bincount([0, 0, 22], minlength=24)),
        karyotype_by_box=format_karyotype(
            np.bincount([c.label for c in chromosomes], minlength=24)
        ),
        confidence=0.25,
        flags=("count",),
        case_id=case_id,
        view={"zoom": 1.5, "crop": [0, 0, 300, 200], "note": "spread found"},
    )


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Cell]:
    """Makes a cell by hand."""
    return some_cell
