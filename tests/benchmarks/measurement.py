"""What a benchmark reports, and the images it may run on."""

from __future__ import annotations

import contextlib
import io
import operator
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepacc_d2.data.dataset import read_info
from deepacc_d2.data.synthetic import SyntheticConfig, write_dataset

_COMPARE = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Measurement:
    """One number with its goal.

    Attributes:
        name: what was compared.
        value: the number, in ``unit``.
        goal: ``<=`` or ``>=`` and a number; ``-`` if it is only for the record.
        unit: of the value; ``x`` for a ratio.
        how: one sentence on how it was measured.
        details: further numbers, kept in the JSON file.
    """

    name: str
    value: float
    goal: str
    unit: str
    how: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the value reaches the goal; None without one."""
        if self.goal == "-":
            return None
        comparison, bound = self.goal.split()
        return bool(_COMPARE[comparison](self.value, float(bound)))


@contextlib.contextmanager
def jpeg_dataset(count: int, test: int = 1) -> Iterator[tuple[Path, str]]:
    """Yields a data directory with at least that many training JPEGs, and what they are.

    The environment variable ``DEEPACC_DATA`` names a directory in the internal format; without it
    a synthetic one of the default image size is drawn and removed at the end, with ``test`` images
    to test on.
    """
    named = os.environ.get("DEEPACC_DATA")
    if named:
        info = read_info(named)
        yield Path(named), f"{info.name}, {info.counts['train']} images"
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "synthetic"
        with contextlib.redirect_stdout(io.StringIO()):
            write_dataset(
                root, SyntheticConfig(), {"train": count, "val": 1, "test": test}, progress=False
            )
        yield root, f"synthetic, {count} images"
