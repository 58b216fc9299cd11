"""Runs a function in two processes that are one gloo group; for tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, multiprocessing


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _worker(
    rank: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...], results: Any
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        results[rank] = function(rank, *arguments)
    finally:
        distributed.destroy_process_group()


def run_twice(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Calls ``function(rank, *arguments)`` in both processes and returns what they return.

    The function has to be at the top of an importable module, and the results picklable.
    """
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.start_processes(
            _worker,
            args=(_free_port(), function, arguments, results),
            nprocs=2,
            start_method="fork",
        )
        return [results[rank] for rank in range(2)]
