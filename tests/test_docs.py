"""The documentation: links, make targets and paths exist; spelling; one version."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import deepacc_d2

ROOT = Path(__file__).resolve().parents[1]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WRITTEN = [*TOP, *PAGES]
NAMES = [str(path.relative_to(ROOT)) for path in WRITTEN]
# Spelled otherwise here, or not idiomatic in these texts; `licence` is a key of dataset.json.
WRONG = (
    r"\b(colours?|coloured|licences?|behaviours?|favours?|grey"
    r"|mend(s|ed|ing)?|beside|tells|of ours|(goes|went) on)\b"
)
# What is being written anew, or is written by a program.
WIDE = ("KARYOGRAM.md", "RELIABILITY.md", "REVIEW.md")


def prose(path: Path) -> str:
    """The text without code, tables, comments and what `make ablation` writes."""
    text = re.sub(r"<!-- begin.*?<!-- end.*?-->", "", path.read_text("utf-8"), flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("path", TOP, ids=lambda path: path.name)
def test_links_of_the_front_pages_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8"))
    local = [link.split("#")[0] for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", WRITTEN, ids=NAMES)
def test_make_targets_and_paths_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    lists = re.findall(r"^(?:\.PHONY:|LAUNCHED =)((?:.*\\\n)*.*)$", makefile, flags=re.MULTILINE)
    targets = set(re.findall(r"[a-z][a-z-]*", " ".join(lists)))
    blocks = "\n".join(re.findall(r"^```.*?^```$", text, flags=re.DOTALL | re.MULTILINE))
    named = set(re.findall(r"^make ([a-z][a-z-]*)", blocks, flags=re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z][a-z-]*)", text))
    assert named <= targets
    folders = "deepacc_d2|lightning|conf|tests|scripts|docs|notebooks|requirements"
    paths = set(re.findall(rf"`((?:{folders})/[\w./-]+)`", text))
    assert {p for p in paths if not (ROOT / p).exists()} <= {"docs/images/synthetic.png"}


@pytest.mark.parametrize("path", WRITTEN, ids=NAMES)
def test_spelling_is_american(path: Path) -> None:
    assert re.findall(WRONG, prose(path).replace("`licence`", "")) == []


@pytest.mark.parametrize("path", WRITTEN, ids=NAMES)
def test_lines_have_one_width(path: Path) -> None:
    wide = [line for line in prose(path).splitlines() if len(line) > 100]
    assert path.name in WIDE or [line for line in wide if "](" not in line] == []


def test_readme_is_one_screen_and_its_python_is_short() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 110
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    compile(code, "README.md", "exec")
    assert len([line for line in code.splitlines() if line]) <= 5


def test_decisions_are_numbered_and_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    records = sorted(path for path in folder.glob("*.md") if path.name != "index.md")
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    index = (folder / "index.md").read_text("utf-8")
    for path in records:
        assert f"({path.name})" in index
        headings = re.findall(r"^## (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"]


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "deepacc_d2.__version__"
    assert version("deepacc-d2") == deepacc_d2.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == deepacc_d2.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (\S+)", changes, flags=re.MULTILINE)
    assert headings[:2] == ["Unreleased", deepacc_d2.__version__]
