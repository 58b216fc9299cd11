"""The page is one file that loads nothing, holds the numbers of the CSV, and runs no one's text."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from deepacc_d2.evaluation.comparison.figures import build_figures
from deepacc_d2.evaluation.comparison.page import build_page
from deepacc_d2.evaluation.comparison.result import Comparison, build_comparison, to_dict
from deepacc_d2.evaluation.comparison.runs import LeftOut, read_runs

MakeRun = Callable[..., Path]
HOSTILE = "<img src=x onerror=alert(1)>&\"'</script><script>alert(2)</script>%{x}$"


class Page(HTMLParser):
    """What a page asks a browser for, its tables and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.tables: list[list[list[str]]] = []
        self._script: str | None = None
        self._cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or f"script {len(self.scripts)}"
            self.scripts[self._script] = ""
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None
        elif tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] += data
        elif self._cell:
            self.tables[-1][-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def comparison(write: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("runs")
    paths = [
        write(
            folder / f"{preset}-{alpha}-{seed}", preset=preset, alpha=alpha, seed=seed, level=level
        )
        for level, (preset, alpha, seed) in enumerate(
            ((p, a, s) for p in ("sep", "siamese_gia") for a in (0.1, 0.2, 0.4) for s in (0, 1)),
            start=50,
        )
    ]
    left_out = [LeftOut(Path("/x/bad"), "bad", "failed", "out of memory")]
    return build_comparison(read_runs(paths)[0], left_out, title="A & B")


@pytest.fixture(scope="module")
def page(comparison: Comparison) -> Page:
    return Page(build_page(comparison))


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base"}
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "poster", "action", "background"):
            assert name not in attributes, (tag, attributes)
        assert re.fullmatch(r"#[a-z-]+", attributes.get("href") or "#none")
        assert not {name for name in attributes if name.startswith("on")}
    (style,) = (m for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    policy = style["content"] or ""
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert not any("connect-src" in part for part in policy.split(";"))


def test_the_styles_and_the_program_ask_for_nothing() -> None:
    import deepacc_d2.evaluation.comparison as package

    folder = Path(package.__file__).parent
    assert not re.search(r"url\(|@import|https?:", (folder / "page.css").read_text())
    program = (folder / "page.js").read_text()
    assert not re.search(r"https?:|fetch\(|XMLHttp|import\(|innerHTML|eval\(", program)
    assert "showSendToCloud: false" in program  # Plotly would offer to upload the chart


def test_the_data_in_the_page_are_those_of_the_files(comparison: Comparison, page: Page) -> None:
    csv = json.loads(page.scripts["csv"])
    assert csv == comparison.table.to_csv(index=False)
    assert json.loads(page.scripts["comparison"]) == to_dict(comparison)
    table = pd.read_csv(io.StringIO(csv))
    shown = page.tables[0]
    assert [row[0].removesuffix(" ★") for row in shown[1:]] == table["run"].tolist()
    column = shown[0].index("val map50")
    assert [float(row[column]) for row in shown[1:]] == pytest.approx(table["val_map50"].tolist())
    best = [row[0] for row in shown[1:] if row[0].endswith("★")]
    assert best == [table.loc[table["val_map50"].idxmax(), "run"] + " ★"]


def test_every_figure_has_its_place_and_its_data(page: Page) -> None:
    figures = json.loads(page.scripts["figures"])
    places = [int(a["data-figure"] or -1) for _, a in page.tags if "data-figure" in a]
    assert places == list(range(len(figures)))
    assert all(figure["data"] for figure in figures)
    kinds = {trace["type"] for figure in figures for trace in figure["data"]}
    assert kinds == {"scatter", "bar", "heatmap", "parcoords"}
    assert "bdata" not in page.scripts["figures"]  # numbers can be read, not only by Plotly


def test_the_sections_are_those_that_the_runs_give_rise_to(page: Page, make_run: MakeRun) -> None:
    def sections(page: Page) -> list[str | None]:
        return [attributes["id"] for attributes in page.of("section")]

    assert sections(page) == [
        *("summary", "groups", "differences", "bars", "sensitivity", "interactions", "parallel"),
        *("curves", "classes", "errors", "cost", "left-out", "common"),
    ]
    links = [a["href"] for a in page.of("a")]
    assert links == [f"#{name}" for name in sections(page)]
    alone = read_runs([make_run("alone", test=False, facts={"status": "finished"})])[0]
    assert sections(Page(build_page(build_comparison(alone)))) == [
        *("summary", "curves", "cost", "common"),
    ]


def test_a_class_without_a_chromosome_is_empty_and_not_zero(page: Page) -> None:
    figures = json.loads(page.scripts["figures"])
    (classes,) = (
        figure["data"][0]
        for figure in figures
        if figure["layout"]["xaxis"].get("ticktext", [""])[0] == "1"
    )
    assert len(classes["z"]) == 12
    assert [row[-1] for row in classes["z"]] == [None] * 12  # Y, the last in Denver order
    assert all(0 <= value <= 100 for row in classes["z"] for value in row[:-1])


def test_points_and_means_of_a_sensitivity_are_in_the_figure(
    comparison: Comparison, page: Page
) -> None:
    figures = json.loads(page.scripts["figures"])
    (figure,) = (
        figure
        for figure in figures
        if figure["layout"]["xaxis"].get("title", {}).get("text") == "alpha"
        and figure["layout"]["yaxis"]["title"]["text"] == "validation map50, %"
    )
    (mean,) = (trace for trace in figure["data"] if trace["name"] == "mean")
    expected = comparison.table.groupby("alpha")["val_map50"].mean()
    assert (mean["x"], mean["y"]) == (expected.index.tolist(), pytest.approx(expected.tolist()))
    points = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    assert sum(len(trace["x"]) for trace in points) == 12
    assert "n = 4" in figure["layout"]["xaxis"]["ticktext"][0]
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_hostile_texts_stay_texts(make_run: MakeRun) -> None:
    data = {"name": HOSTILE, "root": "/x", "fingerprint": HOSTILE}
    facts = {"data": data, "device": HOSTILE, "git": {"revision": HOSTILE}}
    paths = [
        make_run("<b>x</b>&'", preset="sep", facts=facts),
        make_run("b", preset=HOSTILE, facts=facts, **{"optim.optimizer.name": HOSTILE}),
        make_run("c", preset="aam", facts=facts),
    ]
    left_out = [LeftOut(Path("/x"), HOSTILE, "failed", HOSTILE)]
    comparison = build_comparison(read_runs(paths)[0], left_out, title=HOSTILE)
    text = build_page(comparison)
    page = Page(text)
    assert "alert(2)</script>" not in text
    assert len(page.of("script")) == 5
    assert not page.of("img")
    assert {tag for tag, _ in page.tags} & {"b"} == {"b"}  # the cards' own
    assert page.tables[0][1][0] == "<b>x</b>&' ★"
    assert any(HOSTILE in cell for table in page.tables for row in table for cell in row)
    assert json.loads(page.scripts["comparison"])["title"] == HOSTILE
    drawn = json.dumps(json.loads(page.scripts["figures"]))
    assert "<extra>" in drawn
    allowed = {"b", "/b", "br", "i", "/i", "extra", "/extra"}
    assert set(re.findall(r"<(/?[a-z]+)[^>]*>", drawn)) <= allowed


def test_still_figures_are_drawn_for_what_there_is(
    comparison: Comparison, make_run: MakeRun, tmp_path: Path
) -> None:
    drawers = build_figures(comparison)
    assert set(drawers) == {"groups.png", "curves.png", "sensitivity_alpha.png"}
    for name, plot in drawers.items():
        plot().savefig(tmp_path / name, format="png", dpi=40)
        assert (tmp_path / name).stat().st_size > 2000
    alone = build_comparison(read_runs([make_run("alone $x^")])[0])
    assert set(build_figures(alone)) == {"curves.png"}


def test_the_still_sensitivity_shows_the_points_and_the_means(comparison: Comparison) -> None:
    left, right = build_figures(comparison)["sensitivity_alpha.png"]().axes
    points = left.collections[0].get_offsets()
    assert sorted(points[:, 1]) == sorted(comparison.table["val_map50"])
    expected = comparison.table.groupby("alpha")["val_map50"].mean()
    line = next(line for line in left.lines if line.get_label() == "mean")
    assert line.get_ydata() == pytest.approx(expected.tolist())
    assert left.get_xscale() == "log"
    assert left.get_xticklabels()[0].get_text() == "0.1\nn = 4"
    assert "reported" in right.get_title()
