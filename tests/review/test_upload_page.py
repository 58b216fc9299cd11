"""New images on the worklist, chosen or dropped, as a person sees them."""

from __future__ import annotations

import base64
import re
import sys

import pytest

from deepacc_d2.review.uploads.queue import Uploads

from .driving import Site, expect, look, needs_chromium
from .test_uploads import FAKE, png

pytestmark = needs_chromium


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path, users=False)
    root = made.context.root
    # The process copies this cell.
    (root / "cells" / "cell00.json").write_text((root / "cells" / "t1.json").read_text())
    made.context.uploads = Uploads(made.store, root, command=(sys.executable, "-c", FAKE))
    yield made
    made.context.uploads.close()
    made.close()


def drop(page, name, content):
    """Drops a file on the page."""
    page.evaluate(
        """([name, content]) => {
        const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], name));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        [name, base64.b64encode(content).decode()],
    )


def test_images_are_chosen_or_dropped_and_appear_in_the_worklist(browser, site):
    page = look(browser, site, "/")
    rows = page.locator("#cells tbody tr")
    expect(rows).to_have_count(2)
    page.get_by_label("case of the images").fill("case 9")
    files = [{"name": f"new{n}.png", "mimeType": "image/png", "buffer": png()} for n in range(2)]
    page.get_by_label("images to add").set_input_files(files)
    drop(page, "dropped.png", png(seed=3))
    listed = page.locator(".uploads")
    for name in ("new0", "new1", "dropped"):
        expect(listed.get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(rows).to_have_count(5)
    expect(rows.filter(has_text="dropped").locator("td").nth(1)).to_have_text("case 9")
    listed.get_by_role("link", name="dropped").click()
    page.wait_for_url(re.compile(r"/cell/\d+$"))
    assert page.problems == []


def test_bad_files_have_one_line_each_and_stop_no_other(browser, site):
    page = look(browser, site, "/")
    drop(page, "text.txt", b"hello")
    drop(page, "empty.png", b"")
    drop(page, "<b>damaged.png", png()[:500])
    drop(page, "bad.png", png(seed=1))
    drop(page, "fine.png", png(seed=2))
    alarms = page.locator(".uploads .alarm")
    expect(page.locator(".uploads").get_by_role("link", name="fine")).to_be_visible()
    expect(alarms).to_have_count(4)
    told = alarms.all_text_contents()
    for says in (
        "text.txt is not an image: give .jpg",
        "empty.png is empty (0 bytes)",
        "<b>damaged.png is truncated or damaged",
        "bad.png is odd",
    ):
        assert sum(says in line for line in told) == 1
    assert page.locator(".uploads b").count() == 0
    assert page.problems == []
