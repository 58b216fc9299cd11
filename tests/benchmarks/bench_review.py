"""The review's server with 2,000 cells: actions, the page of a cell, ten people at once, memory.

``DEEPACC_BENCH_MINUTES`` sets how long the ten people work; 1 if not given. Besides the time that
passes, the server's CPU time is measured, which other programs on the machine change less.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measurement import Measurement

from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.karyotype.interpret import interpret
from deepacc_d2.karyotype.settings import KaryotypeSettings
from deepacc_d2.prediction.folder import open_folder
from deepacc_d2.prediction.record import to_record

CELLS, IMAGES, PEOPLE, ACTIONS = 2000, 20, 10, 300
READY = """() => new Promise((done) => {
  const look = () => { if (document.body?.dataset.ready) done(); else requestAnimationFrame(look); };
  look();
})"""
"""Waits in the page until its karyogram is drawn: Playwright itself looks every half second only."""
LOOK_SECONDS = 3.0
"""How long a person looks at a cell before going to the next one."""
MINUTES = float(os.environ.get("DEEPACC_BENCH_MINUTES", "1"))


def _results(root: Path) -> Path:
    """Writes 2,000 cells of 20 drawn images of the usual size."""
    job = {
        "kind": "deepacc_d2 prediction",
        "model": {"name": "drawn", "sha256": "0" * 64},
        "settings": {"view": {}, "karyotype": KaryotypeSettings().to_dict()},
    }
    folder = open_folder(root / "results", job)
    cells = []
    for n in range(IMAGES):
        gray, record = render_metaphase(SyntheticConfig(seed=1, box_margin=3), n, 0)
        path = root / f"image{n}.png"
        cv2.imwrite(str(path), gray)
        boxes, p = [], []
        for annotation in record["annotations"]:
            x, y, w, h = annotation["bbox"]
            boxes.append((x, y, x + w, y + h))
            p.append(np.full(25, 0.03 / 24))
            p[-1][annotation["category_id"] - 1] = 0.97
        found = interpret(boxes, np.array(p))
        chromosomes = [
            Chromosome(
                box,
                found.probabilities[k],
                int(found.labels[k]),
                int(found.assigned[k]),
                float(found.confidences[k]),
                found.flags[k],
            )
            for k, box in enumerate(boxes)
        ]
        size = gray.shape[1], gray.shape[0]
        karyotype = found.karyotype
        cells.append(
            Cell("", str(path), *size, chromosomes, karyotype, karyotype, found.confidence)
        )
    for n in range(CELLS):
        cell = cells[n % IMAGES]
        cell.name, cell.case_id = f"cell{n:04d}", f"case{n // 20:03d}"
        folder.record(cell.name).write_text(json.dumps(to_record(cell)))
    return folder.root


def _start(root: Path) -> tuple[subprocess.Popen[str], str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "deepacc_d2.review", "serve", str(root), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    told = ""
    assert server.stdout is not None
    while "review at" not in told:
        told += server.stdout.readline()
        assert server.poll() is None, told
    found = re.search(r":(\d+)/", told)
    assert found is not None
    return server, f"http://127.0.0.1:{found[1]}"


def _call(url: str, token: str = "", body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "x-review-token": token}
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def _edit(api: str, token: str, number: int, rng: random.Random) -> float:
    """Changes a cell as a person does, and returns the seconds of the change alone."""
    cell = _call(f"{api}/cells/{number}")
    chromosome = rng.choice(cell["chromosomes"])["id"]
    event: dict[str, Any] = rng.choice(
        [
            {"kind": "reclassify", "chromosome": chromosome, "to": str(rng.randint(1, 22))},
            {"kind": "turn", "chromosome": chromosome},
            {"kind": "undo"} if cell["can_undo"] else {"kind": "note", "text": "seen"},
        ]
    )
    start = time.perf_counter()
    _call(f"{api}/cells/{number}/events", token, {"event": event, "base": cell["version"]})
    return time.perf_counter() - start


def _memory(process: subprocess.Popen[str]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def _cpu(process: subprocess.Popen[str]) -> float:
    """Returns the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _people(api: str, token: str) -> tuple[list[float], list[str]]:
    """Ten people work at cells of their own, and at one that they share."""
    seconds: list[float] = []
    errors: list[str] = []
    until = time.monotonic() + 60 * MINUTES

    def work(person: int) -> None:
        rng = random.Random(person)
        seen = 2_000_000_000  # as a page that was just opened: only what comes now
        while time.monotonic() < until:
            number = 1 if rng.random() < 0.1 else rng.randint(1 + 200 * person, 200 + 200 * person)
            try:
                seconds.append(_edit(api, token, number, rng))
                seen = _call(f"{api}/changes?after={seen}")["seq"]
            except urllib.error.HTTPError as error:
                # Another one was faster, or the class was that already: both are answers.
                if error.code not in (409, 422):
                    errors.append(f"{error} {error.read()[:100]!r}")
            except OSError as error:
                errors.append(str(error))
            time.sleep(rng.uniform(0.2, 1.0))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(PEOPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds, errors


def _pages(url: str) -> tuple[list[float], list[float]]:
    """Returns the seconds until the page of a cell that nobody opened yet shows its karyogram.

    Returns:
        Of cells that are opened at once after each other, and of the next cell by its key, after
        some seconds of looking at the one before.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return [], []
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        return [], []
    seconds, following = [], []
    with sync_playwright() as started:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for number in range(1, IMAGES // 2 + 1):
            start = time.perf_counter()
            page.goto(f"{url}/cell/{number}", wait_until="commit")
            page.evaluate(READY)
            seconds.append(time.perf_counter() - start)
        for number in range(IMAGES // 2 + 1, IMAGES + 1):
            page.wait_for_timeout(1000 * LOOK_SECONDS)
            start = time.perf_counter()
            page.keyboard.press(".")
            page.wait_for_url(f"**/cell/{number}", wait_until="commit")
            page.evaluate(READY)
            following.append(time.perf_counter() - start)
        browser.close()
    return seconds, following


def run() -> list[Measurement]:
    """Measures the goals of the review; nothing without its extra."""
    if importlib.util.find_spec("fastapi") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        root = _results(Path(folder))
        server, url = _start(root)
        try:
            api = f"{url}/api/v1"
            for _ in range(100):
                try:
                    token = _call(f"{api}/me")["token"]
                    break
                except OSError:
                    time.sleep(0.1)
            start = _cpu(server)
            pages, following = _pages(url)
            page_cpu = (_cpu(server) - start) / max(len(pages) + len(following), 1)
            rng = random.Random(0)
            alone = []
            start = _cpu(server)
            while len(alone) < ACTIONS:
                try:
                    alone.append(_edit(api, token, rng.randint(1, CELLS), rng))
                except urllib.error.HTTPError:
                    continue
            action_cpu = (_cpu(server) - start) / len(alone)
            start = time.perf_counter()
            _call(f"{api}/cells?limit=100")
            listed = time.perf_counter() - start
            before = _memory(server)
            half: list[float] = []
            timer = threading.Timer(30 * MINUTES, lambda: half.append(_memory(server)))
            timer.start()
            start, began = _cpu(server), time.monotonic()
            seconds, errors = _people(api, token)
            minutes = (time.monotonic() - began) / 60
            among_cpu = (_cpu(server) - start) / max(len(seconds), 1)
            grown = _memory(server) - before
            timer.join()
            late = _memory(server) - half[0]
        finally:
            server.terminate()
            server.wait(30)
    how = f"{CELLS} cells in the store"
    load = os.getloadavg()[1]
    many = f"{PEOPLE} people for {minutes:.1f} min, {len(seconds)} actions, load {load:.0f}"
    if errors:
        print(f"errors: {errors[:5]}")
    read = f"{how}; an action and the cell before it"
    found = [
        Measurement("review, an action (p95)", 1000 * _p95(alone), "<= 100", "ms", how),
        Measurement("review, CPU of an action", 1000 * action_cpu, "-", "ms", read),
        Measurement("review, the worklist", 1000 * listed, "-", "ms", how),
        Measurement("review, an action among others (p95)", 1000 * _p95(seconds), "-", "ms", many),
        Measurement("review, CPU of an action among others", 1000 * among_cpu, "-", "ms", many),
        Measurement("review, errors among others", len(errors), "<= 0", "errors", many),
        Measurement("review, memory grown among others", grown, "-", "MiB", many),
        Measurement("review, of this in the second half", late, "-", "MiB", many),
    ]
    if pages:
        text = f"{how}, each image for the first time, in Chromium"
        found.insert(
            0, Measurement("review, page of a cell (p95)", _p95(pages), "<= 1.0", "s", text)
        )
        median = float(np.median(pages))
        found.insert(1, Measurement("review, page of a cell (median)", median, "-", "s", text))
        found.insert(2, Measurement("review, CPU of a page", page_cpu, "-", "s", text))
        text = f"{how}, after {LOOK_SECONDS:.0f} s at the one before, in Chromium"
        found.insert(
            3, Measurement("review, the next cell (p95)", _p95(following), "<= 1.0", "s", text)
        )
    return found


def _p95(seconds: list[float]) -> float:
    return float(np.percentile(seconds, 95)) if seconds else float("nan")


if __name__ == "__main__":
    for each in run():
        print(each)
