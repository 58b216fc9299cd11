"""The pages, driven in Chromium as a person does: by mouse and by keyboard."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import cv2
import pytest
import uvicorn
from argon2 import PasswordHasher

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.coco import load_coco_split
from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
from deepacc_d2.data.synthetic.render import case_genome
from deepacc_d2.prediction.folder import OutputFolder, open_folder
from deepacc_d2.prediction.outputs import write_cell
from deepacc_d2.review.cases import Rule
from deepacc_d2.review.dataset import write_dataset
from deepacc_d2.review.export import export
from deepacc_d2.review.imaging import Imaging
from deepacc_d2.review.people import People
from deepacc_d2.review.store.intake import take_in
from deepacc_d2.review.store.store import Store
from deepacc_d2.review.store.verify import verify
from deepacc_d2.review.web.app import create_app
from deepacc_d2.review.web.context import Context

from .fixtures import JOB, cell_of, probabilities_of

playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser is missing")
expect = playwright.expect
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
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
        context = Context(
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


def test_a_trisomy_is_found_split_signed_by_two_exported_and_made_a_data_set(
    browser, shared, tmp_path
):
    site = shared
    page = look(browser, site, "/cell/1", user="rea")
    expect(page.locator("#karyotype")).not_to_have_text(re.compile(r"\+21$"))
    # The 22 that is a 21.
    wrong = called_22(site.store.cell(1))
    choose(page, wrong)
    type_class(page, "21")
    settled(page, site)
    # The two in one box.
    (first, k), (second, m) = site.two
    whole = next(
        c.id
        for c in site.store.cell(1).state.chromosomes
        if c.box[0] <= min(first[0], second[0]) + 0.01
        and c.box[3] >= max(first[3], second[3]) - 0.01
        and c.box[1] <= min(first[1], second[1]) + 0.01
        and c.box[2] >= max(first[2], second[2]) - 0.01
    )
    choose(page, whole)
    page.keyboard.press("s")
    stroke(page, *between(first, second))
    cell = settled(page, site)
    assert cell.found.cell.unidentified
    for c in cell.state.chromosomes[-2:]:
        middle = (c.box[0] + c.box[2]) / 2, (c.box[1] + c.box[3]) / 2
        inside = first[0] <= middle[0] <= first[2] and first[1] <= middle[1] <= first[3]
        choose(page, c.id)
        type_class(page, CLASSES[k if inside else m])
        settled(page, site)
    expect(page.locator("#karyotype")).to_have_text(re.compile(r"^47,X[XY],\+21$"))
    page.keyboard.press("a")
    settled(page, site)
    # The other cell: by the odds of the strip below.
    page.keyboard.press(".")
    page.wait_for_url("**/cell/2")
    page.wait_for_selector("body[data-ready]")
    choose(page, called_22(site.store.cell(2)))
    page.locator("#detail .odds button", has_text=re.compile("^21$")).click()
    settled(page, site, 2)
    page.locator("#confirm-karyotyped").click()
    settled(page, site, 2)
    page.keyboard.press("e")
    page.wait_for_url("**/case/1")
    expect(page.locator("#karyotype")).to_have_text(re.compile(r"^47,X[XY],\+21\[2\]$"))
    page.locator("#sign-first").click()
    page.locator("dialog input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_text("first reader: rea")).to_be_visible()
    boss = look(browser, site, "/case/1", user="rev")
    boss.keyboard.press("2")
    boss.locator("dialog input[name=password]").fill(PASSWORD)
    boss.keyboard.press("Enter")
    expect(boss.get_by_text("signed, locked")).to_be_visible()
    assert [page.problems, boss.problems] == [[], []]
    assert verify(site.store).problems == []
    told = export(site.store, tmp_path / "out", overlay=False, karyogram=())
    assert told.cases == 1
    cases = list((tmp_path / "out" / "cases").glob("*.json"))
    record = json.loads(cases[0].read_text())
    assert record["karyotype"].endswith(",+21[2]")
    assert [s["who"] for s in record["review"]["signatures"]] == ["rea", "rev"]
    assert OutputFolder(tmp_path / "out").read("t0").karyotype.endswith(",+21")
    assert write_dataset(site.store, tmp_path / "data", ratios="1:0:0").images == 2
    coco = load_coco_split(tmp_path / "data", "train")
    assert sum(a["category_id"] == 21 for a in coco["annotations"]) == 6


def test_every_action_by_keyboard(browser, site):
    page = look(browser, site, "/cell/1")
    before = site.store.cell(1)
    a, b = of_class(site, "5")[0], of_class(site, "9")[0]

    def done():
        return settled(page, site).state

    choose(page, a)
    page.keyboard.press("t")
    assert done().find(a).turned
    page.keyboard.press("m")
    assert done().find(a).marker
    page.keyboard.press("u")
    assert done().find(a).name == "?"
    page.keyboard.press("x")
    assert done().find(a).name == "X"
    type_class(page, "1")
    assert done().find(a).name == "1"
    page.keyboard.press("w")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert done().find(a).name != "1"
    choose(page, b)
    page.keyboard.press("Delete")
    assert not done().find(b).counted
    count = len(site.store.cell(1).state.chromosomes)
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    state = done()
    assert len(state.chromosomes) == count + 1
    made = state.chromosomes[-1]
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    for _ in range(2):
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Enter")
    assert done().find(made.id).box != made.box
    page.keyboard.press("j")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert len(done().chromosomes) == count
    page.keyboard.press("g")
    page.locator("dialog textarea").fill("torn")
    page.locator("dialog button.main").click()
    assert done().reason == "torn"
    page.keyboard.press("v")
    page.locator("dialog textarea").fill("a remark")
    page.locator("dialog button.main").click()
    assert done().notes == ("a remark",)
    edits = site.store.cell(1).state.edits
    assert edits == site.seen[1]
    for left in reversed(range(edits)):
        page.keyboard.press("z")
        assert done().edits == left
    assert site.store.cell(1).state.chromosomes == before.state.chromosomes
    page.keyboard.press("Shift+Z")
    assert done().edits == 1
    page.keyboard.press("b")
    assert done().confirmed == "counted"
    page.keyboard.press("?")
    expect(page.locator("dialog kbd").first).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    page.wait_for_url(f"{site.url}/")
    assert page.problems == []
    assert verify(site.store).problems == []


def test_drag_gives_another_class_and_hover_shows_both(browser, site):
    page = look(browser, site, "/cell/1")
    a = of_class(site, "7")[0]
    strip = page.locator(f"#page .strip[data-id='{a}']")
    strip.hover()
    expect(page.locator(f"#spread g.item[data-id='{a}']")).to_have_class(re.compile("hover"))
    strip.drag_to(page.locator("#page .slot[data-class='8']"))
    assert settled(page, site).state.find(a).name == "8"
    strip = page.locator(f"#page .strip[data-id='{a}']")
    strip.drag_to(page.locator("#page .slot[data-class='none']"))
    assert not settled(page, site).state.find(a).counted
    b = of_class(site, "13")[0]
    box = site.store.cell(1).state.find(b).box
    page.mouse.move(*at(page, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    page.mouse.down()
    page.mouse.up()
    assert page.locator("#page .strip.chosen").count() == 1
    assert page.problems == []


def test_a_connection_lost_in_the_middle_of_a_drag_loses_nothing(browser, site):
    page = look(browser, site, "/cell/1")
    a = of_class(site, "7")[0]
    start = page.locator(f"#page .strip[data-id='{a}']").bounding_box()
    end = page.locator("#page .slot[data-class='8']").bounding_box()
    page.mouse.move(start["x"] + 4, start["y"] + 8)
    page.mouse.down()
    page.mouse.move(end["x"] + 20, end["y"] + 20, steps=4)
    page.context.set_offline(True)
    page.mouse.up()
    expect(page.locator("#toast")).to_contain_text("one change waits")
    assert len(site.store.cell(1).events) == 0
    page.context.set_offline(False)
    assert settled(page, site).state.find(a).name == "8"
    assert len(site.store.cell(1).events) == 1


def test_two_people_see_each_other_and_lose_nothing(browser, shared):
    site = shared
    rea, rev = (look(browser, site, "/cell/1", user=name) for name in ("rea", "rev"))
    a, b = of_class(site, "5")[0], of_class(site, "6")[0]
    choose(rea, a)
    rea.keyboard.press("t")
    settled(rea, site)
    expect(rev.locator("#toast")).to_contain_text("rea changed this cell")
    settled(rev, site, more=0)
    # Without hearing of it, the second change is refused, and the page shows what is there.
    rev.route("**/changes*", lambda route: route.abort())
    rea.keyboard.press("t")
    settled(rea, site)
    choose(rev, b)
    rev.keyboard.press("x")
    expect(rev.locator("#toast")).to_contain_text("changed by somebody else")
    settled(rev, site, more=0)
    rev.keyboard.press("x")
    state = settled(rev, site).state
    assert state.find(b).name == "X"
    assert not state.find(a).turned


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_small_screen_and_odd_names_stay_text(browser, site, scheme):
    for path in ("/", "/cell/1", "/case/1", "/search"):
        page = look(browser, site, path, scheme=scheme)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 1280, path
        assert page.title() != "owned"
        assert page.locator("img[src=x]").count() == 0
        assert page.problems == []
        page.context.close()
    page = look(browser, site, "/", scheme=scheme)
    expect(page.get_by_text(EVIL).first).to_be_visible()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(20, 22, 26)") == (scheme == "dark")


def test_worklist_by_keyboard_and_search(browser, site):
    page = look(browser, site, "/cell/1")
    a = of_class(site, "21")[0]
    choose(page, a)
    type_class(page, "22")
    settled(page, site)
    page = look(browser, site, "/")
    page.keyboard.press("/")
    page.keyboard.type("t0")
    page.keyboard.press("Enter")
    expect(page.locator("#cells tbody tr")).to_have_count(1)
    page.keyboard.press("Enter")
    page.wait_for_url("**/cell/1")
    page = look(browser, site, "/search?predicted=21&current=22")
    expect(page.locator("#found tbody tr")).to_have_count(1)
    page.locator("#found tbody tr a").click()
    page.wait_for_url(f"**/cell/1#{a}")
    page.wait_for_selector("#page .strip.chosen")
    assert page.locator("#page .strip.chosen").get_attribute("data-id") == str(a)


def test_a_wrong_password_and_a_page_without_login(browser, shared):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{shared.url}/case/1")
    page.wait_for_url("**/login?next=%2Fcase%2F1")
    page.locator("input[name=user]").fill("rea")
    page.locator("input[name=password]").fill("wrong password")
    page.keyboard.press("Enter")
    expect(page.locator("[role=alert]")).to_have_text("user name or password is wrong")
    page.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/case/1")
    page.get_by_text("Log out").click()
    page.wait_for_url("**/login")
