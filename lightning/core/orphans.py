"""Processes that end with the one that started them, however that ended."""

from __future__ import annotations

import os
import threading
import time

INTERVAL = 1.0
"""Seconds between two looks."""


def end_with_parent() -> None:
    """Ends this process soon after the one that started it.

    A parent that is killed says nothing, and its children compute on, or wait for it in the middle
    of a step for as long as a timeout of torch's lasts.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(INTERVAL)
        # Not an exception: the main thread may be in a call that never returns.
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
