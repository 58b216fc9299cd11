"""Synthetic spreads a second on one core, next to a fixed piece of work measured in turn.

The fixed work (JPEG encoding and decoding of one spread) separates a slow machine from a slow
generator. Both are timed in CPU time of one thread, so that other load counts less.

Run as a script: ``python tests/benchmarks/bench_synthetic.py``.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
from measurement import Measurement

from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase

GOAL = 8
SIZE = (704, 685)
CODEC_ROUNDS = 20


def _codec(image: np.ndarray) -> None:
    for _ in range(CODEC_ROUNDS):
        cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_GRAYSCALE)


def run(turns: int = 12) -> list[Measurement]:
    """Draws and encodes a spread and does the fixed work, in alternation."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    config = SyntheticConfig(size=SIZE, size_variation=0)
    image, _ = render_metaphase(config, 0, 0)  # reads the ideogram
    _codec(image)
    spread, codec, wall = [], [], []
    for turn in range(turns):
        began, began_wall = time.process_time(), time.perf_counter()
        image, record = render_metaphase(config, case=turn, cell=1)
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, record["jpeg_quality"]])
        spread.append(time.process_time() - began)
        wall.append(time.perf_counter() - began_wall)
        began = time.process_time()
        _codec(image)
        codec.append(time.process_time() - began)
    cv2.setNumThreads(threads)
    assert image.shape == SIZE[::-1]
    return [
        Measurement(
            name="synthetic spreads a second on one core, 704x685",
            value=1 / float(np.mean(spread)),
            goal=f">= {GOAL}",
            unit="images/s",
            how=f"drawn and JPEG-encoded, CPU time of one thread, mean of {turns}",
            details={
                "images_per_second_wall": 1 / float(np.mean(wall)),
                "spread_seconds": float(np.mean(spread)),
                "codec_seconds": float(np.mean(codec)),
                "codec_rounds": CODEC_ROUNDS,
                "spread_over_codec": float(np.median(np.array(spread) / np.array(codec))),
                "turns": turns,
            },
        )
    ]


if __name__ == "__main__":
    print(run()[0])
