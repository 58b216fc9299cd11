"""Drives the pages in Chromium as a person does: a server of drawn cells, mouse and keyboard."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import cv2
import pytest
import uvicorn
from argon2 import PasswordHasher

from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.data.synthetic.render import case_genome
from deepacc_d2.prediction.folder import open_folder
from deepacc_d2.prediction.outputs import write_cell
from deepacc_d2.review.cases import Rule
from deepacc_d2.review.imaging import Imaging
from deepacc_d2.review.people import People
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.store import Store
from deepacc_d2.review.web.app import create_app
from deepacc_d2.review.web.context import Context

from .fixtures import JOB, cell_of, probabilities_of

playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser is missing")
expect = playwright.expect
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
PASSWORD = "correct horse"
EVIL = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"


def apart(a, b):
    """Pixels between two boxes (x, y, w, h)."""
    dx = max(b[0] - a[0] - a[2], a[0] - b[0] - b[2], 0)
    dy = max(b[1] - a[1] - a[3], a[1] - b[1] - b[3], 0)
    return (dx**2 + dy**2) ** 0.5


def trisomy(number, slides, *, joined):
    """A cell with three 21s, one of which is called 22; two others may share one box.

    Returns the image, the cell, and the true boxes (XYXY) and classes of the two.
    """
    config = SyntheticConfig(
        seed=4, size=(384, 384), abnormality_rate=1.0, loss_rate=0.0, overlap_rate=0.0, box_margin=2
    )
    case = next(k for k in range(500) if case_genome(config, k)[0].iscn.endswith(",+21"))
    gray, record = render_metaphase(config, case, number)
    found = record["annotations"]
    classes = [a["category_id"] - 1 for a in found]
    boxes = [tuple(a["bbox"]) for a in found]
    two = ()
    if joined:
        pairs = [
            (apart(boxes[i], boxes[j]), i, j)
            for i in range(len(boxes))
            for j in range(i)
            if classes[i] != classes[j] and not {classes[i], classes[j]} & {20, 21}
        ]
        _, i, j = min(p for p in pairs if p[0] > 0)
        two = ((boxes[i], classes[i]), (boxes[j], classes[j]))
    shown = [
        ((x, y, x + w, y + h), k)
        for n, ((x, y, w, h), k) in enumerate(zip(boxes, classes, strict=True))
        if not (two and n in (i, j))
    ]
    if two:
        corners = [(x, y, x + w, y + h) for (x, y, w, h), _ in two]
        (a, b) = corners
        whole = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
        shown.append((whole, two[0][1]))
        two = tuple((c, k) for c, (_, k) in zip(corners, two, strict=True))
    wrong = next(n for n, (_, k) in enumerate(shown) if k == 20)
    p = [probabilities_of(k, 0.99) for _, k in shown]
    p[wrong] = probabilities_of(21, 0.95, other=20)
    path = slides / f"t{number}.png"
    cv2.imwrite(str(path), gray)
    about = {"name": path.stem, "path": str(path), "case_id": EVIL, "view": {}}
    size = {"width": gray.shape[1], "height": gray.shape[0]}
    return gray, cell_of([box for box, _ in shown], p, **about, **size), two


class Site:
    """A running server, its store, and what is true of its first cell."""

    def __init__(self, root, *, users=True):
        self.seen = {}
        slides = root / "slides"
        slides.mkdir(parents=True)
        folder = open_folder(root / "results", JOB)
        for number in range(2):
            gray, cell, two = trisomy(number, slides, joined=number == 0)
            write_cell(folder, gray, cell, overlay=False, karyogram=())
            self.two = two or self.two
        self.store = Store(root / "review.db")
        take_in(self.store, folder.root)
        people = People(self.store)
        people._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        if users:
            people.add("rea", PASSWORD, "reader", by="root")
            people.add("rev", PASSWORD, "reviewer", by="root")
        self.context = context = Context(
            store=self.store,
            root=folder.root,
            people=people,
            imaging=Imaging([slides]),
            rule=Rule(2, 2, 0),
            alone="" if users else "ada",
        )
        sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(create_app(context), log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [sock]})
        self.thread.start()

    def close(self):
        self.server.should_exit = True
        self.thread.join(20)
        self.store.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        own = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield own
        own.close()


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    made = Site(tmp_path, users=False)
    yield made
    made.close()


@pytest.fixture
def shared(tmp_path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def look(browser, site, path="", *, user=None, scheme="light"):
    """A new person's page, which fails the test on any error of its scripts."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: page.problems.append(f"dialog {dialog.message}"))
    if user:
        page.goto(f"{site.url}/")
        page.locator("input[name=user]").fill(user)
        page.locator("input[name=password]").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
    page.goto(site.url + path)
    page.wait_for_selector("body[data-ready]")
    return page


def settled(page, site, number=1, more=1):
    """Waits for further events of a cell, and until the page shows them, pictures included."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        cell = site.store.cell(number)
        shown = page.locator("body").get_attribute("data-ready") == str(cell.version)
        if shown and len(cell.events) >= site.seen.get(number, 0) + more:
            site.seen[number] = len(cell.events)
            return cell
        page.wait_for_timeout(30)
    raise AssertionError(f"the page did not follow: {page.locator('#toast').text_content()}")


def of_class(site, name, number=1):
    return [c.id for c in site.store.cell(number).state.chromosomes if c.name == name]


def called_22(cell):
    """The 21 that the program calls 22."""
    found = enumerate(cell.state.prediction.chromosomes, start=1)
    return next(n for n, c in found if c.assigned == 21 and c.probabilities[20] > 0.01)


def choose(page, number):
    page.locator(f"#page .strip[data-id='{number}']").click()


def at(page, x, y):
    """Position in the window of a pixel of the image."""
    return page.evaluate(
        """([x, y]) => { const svg = document.querySelector('#spread svg');
        const p = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM()); return [p.x, p.y]; }""",
        [x, y],
    )


def stroke(page, x0, y0, x1, y1):
    """Draws with the mouse, in pixels of the image."""
    page.mouse.move(*at(page, x0, y0))
    page.mouse.down()
    page.mouse.move(*at(page, (x0 + x1) / 2, (y0 + y1) / 2))
    page.mouse.move(*at(page, x1, y1))
    page.mouse.up()


def type_class(page, name):
    for key in name.lower():
        page.keyboard.press(key)
    if name in ("1", "2"):
        page.keyboard.press("Enter")


def between(a, b):
    """A line that parts two boxes (XYXY), in pixels."""
    for axis in (0, 1):
        for first, second in ((a, b), (b, a)):
            if first[axis + 2] <= second[axis]:
                middle = (first[axis + 2] + second[axis]) / 2
                low = min(a[1 - axis], b[1 - axis]) - 4
                high = max(a[3 - axis], b[3 - axis]) + 4
                return (middle, low, middle, high) if axis == 0 else (low, middle, high, middle)
    raise AssertionError("the boxes overlap")
