"""A server that is killed at any moment has lost no change that it acknowledged."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from deepacc_d2.review.store.store import Store
from deepacc_d2.review.store.verify import verify

KILLS = int(os.environ.get("DEEPACC_TEST_KILLS", "2"))
"""Twenty take some minutes."""


def start(root):
    server = subprocess.Popen(
        [sys.executable, "-m", "deepacc_d2.review", "serve", str(root), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    told = ""
    while "review at" not in told:
        line = server.stdout.readline()
        assert line, told
        told += line
    return server, f"http://127.0.0.1:{re.search(r':([0-9]+)/', told)[1]}/api/v1"


def call(url, token="", body=None):
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", "x-review-token": token},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def edit(url, acknowledged, stop):
    """Edits cell after cell until the server is gone; keeps what was acknowledged."""
    for _ in range(200):
        try:
            token = call(f"{url}/me")["token"]
            break
        except OSError:
            time.sleep(0.05)
    rng = random.Random(len(acknowledged))
    while not stop.is_set():
        number = rng.randint(1, 6)
        key = f"key-{rng.getrandbits(64):016x}"
        try:
            base = call(f"{url}/cells/{number}")["version"]
            event = {"kind": "note", "text": key}
            call(f"{url}/cells/{number}/events", token, {"event": event, "base": base, "key": key})
        except urllib.error.HTTPError:
            continue
        except (OSError, ValueError):
            return
        acknowledged.append((number, key))


def test_sigkill_loses_nothing_that_was_acknowledged(results):
    rng = random.Random(0)
    acknowledged = []
    for _number in range(KILLS):
        server, url = start(results)
        stop = threading.Event()
        before = len(acknowledged)
        thread = threading.Thread(target=edit, args=(url, acknowledged, stop))
        thread.start()
        deadline = time.monotonic() + 30
        while len(acknowledged) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        server.send_signal(signal.SIGKILL)
        server.wait(20)
        stop.set()
        thread.join(30)
        assert len(acknowledged) > before
        store = Store(results / "review" / "review.db")
        assert verify(store).problems == []
        for cell in range(1, 7):
            notes = store.cell(cell).state.notes
            mine = [key for number, key in acknowledged if number == cell]
            # One that was written but not answered any more may be there besides.
            assert [n for n in notes if n in set(mine)] == mine
            assert len(notes) <= len(mine) + KILLS
        store.close()
