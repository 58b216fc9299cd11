"""Decoders, whose C libraries would print what they find wrong on standard error.

They name no file there, and a caller could not ask for it: a JPEG with a broken middle would come
back as a picture.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

# libjpeg continues after these, with whatever the pixels then are. A few bytes too many between the
# parts of a file are some cameras' habit; many are what a broken code left unread.
_DAMAGE = re.compile(r"(?:Corrupt JPEG data|Premature end of JPEG file).*")
_SPARE = re.compile(r"(\d+) extraneous bytes")
_SPARE_BYTES = 16
_DECODERS = re.compile(r"jpeg|libpng|tiff|webp|imread|imdecode|OpenCV|\[ *(WARN|ERROR)", re.I)
# One decoder may ask another.
_lock = threading.RLock()


class Decoded(NamedTuple):
    """Pixels, None where there are none, and what is wrong with them, empty where nothing is."""

    pixels: NDArray[Any] | None
    damage: str


def decode(data: bytes | NDArray[np.uint8], flags: int) -> Decoded:
    """Decodes an image by OpenCV; see ``cv2.imdecode`` for the flags."""
    buffer = np.frombuffer(data, dtype=np.uint8) if isinstance(data, bytes) else data
    with listening() as lines:
        pixels: Any = cv2.imdecode(buffer, flags)
    damage = [match[0][:120] for line in lines if (match := _DAMAGE.search(line))]
    return Decoded(pixels, next((text for text in damage if not _is_spare(text)), ""))


def _is_spare(text: str) -> bool:
    found = _SPARE.search(text)
    return found is not None and int(found[1]) < _SPARE_BYTES


@contextmanager
def listening() -> Iterator[list[str]]:
    """Turns the process's standard error aside while a C library decodes.

    Yields:
        The lines that came there, once the block has ended. What no decoder says, but another
        thread meanwhile, is printed then.
    """
    lines: list[str] = []
    with _lock:
        try:
            kept = os.dup(2) if hasattr(os, "memfd_create") else -1
        except OSError:  # it is closed
            kept = -1
        if kept < 0:
            yield lines
            return
        aside = os.memfd_create("decoder")
        try:
            os.dup2(aside, 2)
            try:
                yield lines
            finally:
                os.dup2(kept, 2)
                size = os.lseek(aside, 0, os.SEEK_CUR)
                said = os.pread(aside, min(size, 10_000), 0).decode("utf-8", "replace")
                lines += [line.strip() for line in said.splitlines() if line.strip()]
                others = [line for line in lines if not _DECODERS.search(line)]
                if others:
                    print("\n".join(others), file=sys.stderr)
        finally:
            os.close(aside)
            os.close(kept)
