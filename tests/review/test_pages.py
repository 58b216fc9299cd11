"""The pages, driven in Chromium as a person does: by mouse and by keyboard."""

from __future__ import annotations

import json
import re

import pytest

from deepacc_d2.chromosomes import CLASSES
from deepacc_d2.data.coco import load_coco_split
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.review.dataset import write_dataset
from deepacc_d2.review.export import export
from deepacc_d2.review.store.verify import verify

from .driving import (
    EVIL,
    PASSWORD,
    at,
    between,
    called_22,
    choose,
    expect,
    look,
    needs_chromium,
    of_class,
    settled,
    stroke,
    type_class,
)

pytestmark = needs_chromium


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
    expect(page.locator("#toast")).to_contain_text("one change is waiting")
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


def test_pictures_that_come_late_are_asked_for_again(browser, site):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(20_000)
    failed = []

    def fail(route):
        if len(failed) < 4:
            failed.append(route)
            route.abort("timedout")
        else:
            route.continue_()

    page.route("**/strips", fail)
    page.goto(f"{site.url}/cell/1")
    expect(page.locator("#toast")).to_contain_text("asked for again")
    page.wait_for_selector("body[data-ready]")
    expect(page.locator("#page .strip img").first).to_be_visible()
    assert page.locator("#page .strip img").count() == len(site.store.cell(1).state.chromosomes)


def test_a_page_without_a_server_says_so(browser, site):
    page = browser.new_context().new_page()
    page.set_default_timeout(20_000)
    page.route("**/api/v1/me", lambda route: route.abort())
    for path in ("/", "/cell/1", "/case/1", "/search"):
        page.goto(f"{site.url}{path}")
        expect(page.get_by_role("alert")).to_contain_text("reload it", timeout=20_000)


def test_all_keys_of_the_search(browser, site):
    page = look(browser, site, "/cell/1")
    a, b = of_class(site, "20")[:2]
    for number in (a, b):
        choose(page, number)
        type_class(page, "19")
        settled(page, site)
    page = look(browser, site, "/search")
    rows = page.locator("#found tbody tr")
    press = page.keyboard.press
    press("?")
    expect(page.locator("dialog")).to_contain_text("Keys of the search")
    press("Escape")
    press("p")
    page.keyboard.type("20")
    press("Enter")
    press("n")
    with page.expect_response("**/corrections?predicted=20&current=19**"):
        page.keyboard.type("19")
    press("Enter")
    expect(rows).to_have_count(2)
    page.wait_for_timeout(100)  # until the answer is shown, which chooses the first row
    for down, up in (("ArrowDown", "ArrowUp"), ("j", "k")):
        press(down)
        expect(rows.nth(1)).to_have_class("chosen")
        press(up)
        expect(rows.nth(0)).to_have_class("chosen")
    press("j")
    press("Enter")
    page.wait_for_url(f"**/cell/1#{b}")
    page = look(browser, site, "/search?predicted=1&current=2")
    expect(page.get_by_text("No chromosome was corrected so.")).to_be_visible()
    page.keyboard.press("h")
    page.wait_for_url(f"{site.url}/")
    assert page.problems == []
