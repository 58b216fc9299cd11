"""What tests of several packages share."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode


class _Operators(TorchDispatchMode):
    """Counts the operators that torch calls within it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def operators() -> type[_Operators]:
    """A context manager whose ``count`` is that of the operators called within it."""
    return _Operators
