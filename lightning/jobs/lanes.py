"""Several images at once through one model: a thread for each, with its share of the CPU.

An image at a time leaves a second core idle much of the time, since few layers are large enough
for two. Images differ in size, so a batch in one tensor would need padding, which changes results.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

MOST = 8
"""More threads than this wait for each other in Python."""

P = ParamSpec("P")
Result = TypeVar("Result")


class Lanes:
    """Runs functions in threads, each of which computes with its share of torch's threads.

    The number of images does not decide that share: sums of other threads round otherwise.

    Args:
        count: of lanes; None: one for each of torch's threads, :data:`MOST` at most.

    Attributes:
        count: of lanes.
        threads: of torch in each.
    """

    def __init__(self, count: int | None = None) -> None:
        self._before = torch.get_num_threads()
        self.count = min(self._before, MOST) if count is None else max(1, count)
        self.threads = max(1, self._before // self.count)
        self._pool = ThreadPoolExecutor(
            self.count, "lane", initializer=torch.set_num_threads, initargs=(self.threads,)
        )

    def submit(
        self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
    ) -> Future[Result]:
        """Sends a call through the next free lane."""
        return self._pool.submit(function, *args, **kwargs)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        torch.set_num_threads(self._before)
