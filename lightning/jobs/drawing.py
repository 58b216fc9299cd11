"""The processes that draw: started while the model is loaded, without the libraries of training.

Imports nothing but the standard library, so that a program can start the server of these processes
before it imports its own libraries, which take seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

PRELOADED = (
    "deepacc_d2.prediction.outputs",
    "deepacc_d2.karyogram.orientation.fit",  # with torch, for the polarity network
    "deepacc_d2.karyogram.orientation.weights",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
)


def start_server() -> None:
    """Starts the server that :func:`drawing_pool` forks from, where the system has such.

    It imports what drawing needs while this process does something else.
    """
    if _has_server():
        from multiprocessing import forkserver

        multiprocessing.set_forkserver_preload(list(PRELOADED))
        forkserver.ensure_running()


def _has_server() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


def drawing_pool(workers: int) -> ProcessPoolExecutor:
    """Starts processes that draw.

    Where the system can, a server imports what drawing needs once and all are forked from it: a
    fork of this process would copy torch's threads in whatever state they are.
    """
    start_server()
    context = multiprocessing.get_context("forkserver" if _has_server() else "spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin)
    with _no_main():
        pool.submit(int)  # the first call starts all processes
    return pool


@contextmanager
def _no_main() -> Iterator[None]:
    """Hides the program from processes that are started, which would import it: seconds each."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin() -> None:
    import cv2

    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    # Both are the main process's business, which waits for what is being drawn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of libraries that are loaded later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _end_with_parent() -> None:
    # The parent by the system is the server, which lives as long as one of its children.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody waits for the results
