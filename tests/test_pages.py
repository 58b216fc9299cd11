from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from deepacc_d2 import pages


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "own_pages"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "page.html.j2").write_text("<p title='{{ name }}'>{{ name }}</p>{{ data | tojson }}")
    (folder / "page.md.j2").write_text("# {{ name }}")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_pages"


def test_what_users_name_is_text_in_html(package):
    name = "<script>'\"&"
    page = pages.render(package, "page.html.j2", name=name, data=[name])
    assert "<script>" not in page
    assert page.startswith("<p title='&lt;script&gt;&#39;&#34;&amp;'>&lt;script&gt;")
    assert pages.render(package, "page.md.j2", name=name) == f"# {name}"


def test_a_name_that_is_missing_is_an_error(package):
    with pytest.raises(UndefinedError, match="name"):
        pages.render(package, "page.md.j2")


def test_a_number_that_json_lacks_is_an_error(package):
    with pytest.raises(ValueError, match="not JSON compliant"):
        pages.render(package, "page.html.j2", name="", data=[float("nan")])
