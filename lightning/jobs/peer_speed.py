"""How fast detectors are next to each other: one image at a time, all of them by turns."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deepacc_d2.data.dataset import read_split, to_dicts
from deepacc_d2.images.read import read_gray
from deepacc_lightning.jobs.peer_networks import Detect, Peer, Request
from deepacc_lightning.training.datamodule import thin

EAGER = "PyTorch"


def race(peers: Mapping[str, tuple[Peer, Request]], count: int) -> dict[str, dict[str, float]]:
    """Times trained peers, and their exports, on the same test views.

    Every image goes to one after the other, and each image begins with another one: what disturbs
    one disturbs all.

    Args:
        peers: by name, each with what it was trained by; at least one.
        count: of images, evenly spaced.

    Returns:
        Seconds of an image, the median, by peer and by what runs it.
    """
    requests = [request for _, request in peers.values()]
    if not requests[0].gpu:
        keep_to(requests[0].threads)
    entrants: dict[tuple[str, str], Detect] = {}
    for name, (peer, request) in peers.items():
        entrants[name, EAGER] = peer.load(request)[0]
        if not request.gpu:
            for how, run in peer.load_exports(request).items():
                entrants[name, how] = run
    seconds = by_turns(entrants, requests[0].views, count)
    found: dict[str, dict[str, float]] = {}
    for (name, how), each in seconds.items():
        found.setdefault(name, {})[how] = float(np.median(each))
    return found


def by_turns(
    entrants: Mapping[tuple[str, str], Detect], views: Path, count: int
) -> dict[tuple[str, str], list[float]]:
    """Returns each one's seconds for each of the images; the first image is run once before."""
    items = to_dicts(thin(read_split(views, "test"), count), views)
    order = list(entrants)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in order}
    for number, item in enumerate(items[:1] + items):
        gray = read_gray(item["file_name"])
        first = number % len(order)
        for key in order[first:] + order[:first]:
            began = time.perf_counter()
            entrants[key](gray, item["image_id"])
            if number:
                seconds[key].append(time.perf_counter() - began)
    return seconds


def keep_to(threads: int) -> None:
    """Keeps this process to as many cores, since not every runtime can be told a number."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
