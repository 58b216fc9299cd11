"""Every key that a page's sheet (``?``) tells of does what it says there."""

from __future__ import annotations

import re

from deepacc_d2.review.store.verify import verify

from .driving import choose, expect, look, needs_chromium, of_class, settled, type_class

pytestmark = needs_chromium


def on_sheet(page):
    """The keys that the page's sheet lists, as they are written there."""
    page.keyboard.press("?")
    found = [text.strip() for text in page.locator("dialog kbd").all_text_contents()]
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    return set(found)


def chosen(page):
    """The id of the chosen chromosome, None where there is none."""
    strips = page.locator("#page .strip.chosen")
    return strips.get_attribute("data-id") if strips.count() else None


def view_box(page):
    return [float(v) for v in page.locator("#spread svg").get_attribute("viewBox").split()]


def answer(page, text):
    """Fills the dialog that a key opened."""
    page.locator("dialog textarea").fill(text)
    page.locator("dialog button.main").click()
    expect(page.locator("dialog")).to_have_count(0)


def test_all_keys_of_a_cell(browser, site):
    page = look(browser, site, "/cell/1")
    press = page.keyboard.press
    tested = set()

    def done():
        return settled(page, site).state

    def tests(text):
        tested.add(text)

    tests("← → or Tab")
    press("ArrowRight")
    first = chosen(page)
    press("ArrowRight")
    second = chosen(page)
    press("ArrowLeft")
    assert chosen(page) == first
    press("Tab")
    assert chosen(page) == second
    press("Shift+Tab")
    assert chosen(page) == first

    tests("Esc")
    press("Escape")
    assert chosen(page) is None

    tests("n, Shift+N")
    press("n")
    flagged = {str(i) for i, c in zip(*found_of(site), strict=True) if c.flags}
    one = chosen(page)
    assert one in flagged
    press("n")
    assert chosen(page) in flagged
    press("Shift+N")
    assert chosen(page) == one

    tests("1 to 22, x, y")
    a = of_class(site, "7")[0]
    choose(page, a)
    for key, name in (("x", "X"), ("y", "Y")):
        press(key)
        assert done().find(a).name == name
    for name in ("14", "1", "3"):
        type_class(page, name)
        assert done().find(a).name == name

    tests("m, u")
    press("m")
    assert done().find(a).marker
    press("u")
    assert done().find(a).name == "?"

    tests("q")
    type_class(page, "14")
    assert done().find(a).name == "14"
    press("q")
    assert done().find(a).derivative
    expect(page.locator(".slot[data-class='14'] .label")).to_contain_text("14 der")
    at_right = page.locator(".slot[data-class='14'] .strip").last
    assert at_right.get_attribute("data-id") == str(a)
    press("u")
    assert not done().find(a).derivative

    tests("t")
    press("t")
    assert done().find(a).turned

    tests("Delete")
    press("Delete")
    assert not done().find(a).counted
    press("z")
    assert done().find(a).counted

    tests("w")
    b, c = of_class(site, "5")[0], of_class(site, "6")[0]
    choose(page, b)
    press("w")
    choose(page, c)
    state = done()
    assert (state.find(b).name, state.find(c).name) == ("6", "5")

    tests("j")
    count = len(state.chromosomes)
    press("j")
    press("ArrowRight")
    press("Enter")
    assert len(done().chromosomes) == count - 1

    tests("z, Shift+Z")
    press("z")
    assert len(done().chromosomes) == count
    press("Shift+Z")
    assert len(done().chromosomes) == count - 1
    press("Control+z")
    assert len(done().chromosomes) == count

    tests("d")
    tests("while drawing")
    press("0")
    press("d")
    expect(page.locator(".mode")).to_contain_text("Draw a box")
    press("Enter")
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "ArrowRight"):
        press(key)
    press("Enter")
    made = done().chromosomes[-1]
    assert made.by_person

    tests("r")
    press("r")
    press("Enter")
    for _ in range(2):
        press("Shift+ArrowLeft")
        press("Shift+ArrowUp")
    press("Enter")
    assert done().find(made.id).box != made.box

    tests("o")
    press("o")
    for key in ("Shift+ArrowRight", "Shift+ArrowDown", "Shift+ArrowLeft", "Shift+ArrowUp"):
        press("Enter")
        press(key)
    press("Enter")
    assert len(done().find(made.id).outline) >= 3
    press("Delete")
    done()

    tests("s")
    whole = max(site.store.cell(1).state.chromosomes, key=lambda k: area(k.box)).id
    choose(page, whole)
    press("s")
    expect(page.locator(".mode")).to_contain_text("line across")
    # The cross starts at the middle of the chromosome: from far left of it to far right.
    for _ in range(6):
        press("Shift+ArrowLeft")
    press("Enter")
    for _ in range(12):
        press("Shift+ArrowRight")
    press("Enter")
    state = done()
    assert whole not in {k.id for k in state.chromosomes}
    press("z")
    done()

    tests("Shift+S")
    choose(page, whole)
    before = len(site.store.cell(1).events)
    press("Shift+S")
    page.wait_for_function(
        """(id) => document.querySelector("#toast.shown") ||
        document.querySelector("#page .strip.chosen")?.dataset.id !== id""",
        arg=str(whole),
    )
    if len(site.store.cell(1).events) > before:
        settled(page, site)

    tests("b, a, k")
    for key, level in (("b", "counted"), ("a", "analyzed"), ("k", "karyotyped")):
        press(key)
        assert done().confirmed == level

    tests("v")
    press("v")
    answer(page, "a remark")
    assert done().notes == ("a remark",)

    tests("g")
    press("g")
    answer(page, "torn")
    assert done().countable is False
    press("g")
    answer(page, "not so torn")
    assert done().countable is True

    tests("+ − 0")
    whole_view = view_box(page)
    press("+")
    assert view_box(page)[2] < whole_view[2]
    press("-")
    press("-")
    assert view_box(page)[2] > whole_view[2]
    press("0")
    assert view_box(page) == whole_view

    tests("Shift+arrows")
    press("Shift+ArrowRight")
    assert view_box(page)[0] > whole_view[0]

    tests("< >")
    image = page.locator("#spread svg image")
    plain = image.get_attribute("style")
    press(">")
    assert image.get_attribute("style") != plain
    press("<")
    assert image.get_attribute("style") == plain

    tests("i")
    press("i")
    assert "invert" in image.get_attribute("style")

    tests("f")
    press("f")
    expect(page.locator("#spread g.item").first).to_be_hidden()
    press("f")
    expect(page.locator("#spread g.item").first).to_be_visible()

    tests("c")
    press("c")
    expect(page.locator("#spread")).to_have_class(re.compile("masked"))

    tests("l")
    press("l")
    expect(page.locator("dialog")).to_contain_text("set_countable")
    press("Escape")

    tests("?")
    listed = on_sheet(page)

    tests(". ,")
    press(".")
    page.wait_for_url("**/cell/2")
    page.wait_for_selector("body[data-ready]")
    press(",")
    page.wait_for_url("**/cell/1")
    page.wait_for_selector("body[data-ready]")

    tests("e, h")
    press("e")
    page.wait_for_url("**/case/1")
    page.wait_for_selector("body[data-ready]")
    page.goto(f"{site.url}/cell/1")
    page.wait_for_selector("body[data-ready]")
    press("h")
    page.wait_for_url(f"{site.url}/")
    assert listed == tested
    assert page.problems == []
    assert verify(site.store).problems == []


def found_of(site):
    found = site.store.cell(1).found
    return found.ids, found.cell.chromosomes


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def test_all_keys_of_the_worklist(browser, site):
    page = look(browser, site, "/")
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # noqa: PLW0108
    press = page.keyboard.press
    listed = on_sheet(page)
    rows = page.locator("#cells tbody tr")
    for down, up in (("ArrowDown", "ArrowUp"), ("j", "k")):
        press(down)
        expect(rows.nth(1)).to_have_class("chosen")
        press(up)
        expect(rows.nth(0)).to_have_class("chosen")
    for key, number in (("4", 0), ("5", 0), ("3", 0), ("2", 2), ("1", 2)):
        press(key)
        expect(rows).to_have_count(number)
    press("r")
    expect(page.locator("#toast")).to_contain_text("nothing new")
    press("a")
    press("/")
    page.keyboard.type("t1")
    press("Enter")
    expect(rows).to_have_count(1)
    assert [chooser.is_multiple() for chooser in choosers] == [True]
    press("c")
    page.wait_for_url("**/case/1")
    page = look(browser, site, "/")
    page.keyboard.press("Enter")
    page.wait_for_url("**/cell/*")
    assert listed == {"↓ ↑ or j k", "Enter", "c", "/", "1 to 5", "a", "r", "?"}
    assert page.problems == []


def test_all_keys_of_a_case(browser, site):
    page = look(browser, site, "/case/1")
    press = page.keyboard.press
    listed = on_sheet(page)
    press("o")
    page.locator("dialog input[name=karyotype]").fill("47,XX,+mar")
    answer(page, "a marker")
    expect(page.locator("#karyotype")).to_have_text("47,XX,+mar")
    press("1")
    answer(page, "a trial")
    expect(page.get_by_text("first reader: ada")).to_be_visible()
    press("2")
    answer(page, "a trial")
    expect(page.locator("#toast")).to_contain_text("another person")
    press("u")
    answer(page, "not yet")
    expect(page.locator("#sign-first")).to_be_enabled()
    with page.expect_download(timeout=60_000) as download:
        press("p")
    assert download.value.suggested_filename == "case-1.pdf"
    with page.expect_download(timeout=60_000) as download:
        press("s")
    assert download.value.suggested_filename == "worksheet-1.html"
    press("f")
    expect(page.locator("#toast")).to_contain_text("sign it first")
    press("w")
    # As PDF, or why not.
    expect(page.locator("#toast")).to_have_text(
        re.compile("worksheet-1.pdf is saved|EXTRAS=worksheet"), timeout=60_000
    )
    press("Enter")
    page.wait_for_url("**/cell/1")
    page = look(browser, site, "/case/1")
    page.keyboard.press("h")
    page.wait_for_url(f"{site.url}/")
    assert listed == {"Enter", "o", "1, 2", "u", "p", "s, w", "f", "h", "?"}
    assert page.problems == []
