"""The ``>>>`` examples of the package, run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "deepacc_d2").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_public_face_and_the_rooms_below_it_have_examples() -> None:
    shown = {"deepacc_d2", *MODULES}
    rooms = {name.split(".")[1] for name in MODULES if "." in name}
    expected = {"chromosomes", "cell", "data", "images", "karyotype", "losses", "modeling"}
    assert "deepacc_d2" in shown
    assert expected <= rooms
