"""``make compare`` on real tiny trainings: from run directories to files, page and errors."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepacc_d2.errors import ConfigError, DataError, run_cli
from deepacc_d2.evaluation.bootstrap import METRICS, compare_presets
from deepacc_d2.evaluation.finished_runs import read_run
from deepacc_d2.evaluation.tally import tally_run
from deepacc_d2.files import read_json
from deepacc_lightning import train
from deepacc_lightning.compare import compare, main
from deepacc_lightning.core.config import compose_config
from tests.lightning.programs import Programs

RUNS = {"sep": (0, 1), "siamese_gia": (0, 1)}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="module")
def runs(shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "runs"
    for preset, seeds in RUNS.items():
        for seed in seeds:
            own = [f"experiment={preset}", f"seed={seed}", f"out={folder / preset / f's{seed}'}"]
            # A model of one epoch is sure of nothing, and nothing tests nothing.
            own += ["model.roi_heads.box_predictor.test_score_thresh=0.0"]
            train.run(compose_config("train", [*shared_overrides, *own]))
    return folder


@pytest.fixture(scope="module")
def out(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison") / "out"
    files = compare([runs], folder, title="tiny", resamples=50)
    assert all(path.is_file() for path in files)
    names = [str(path.relative_to(folder)) for path in files]
    assert names[:3] == ["compare.csv", "compare.json", "compare.html"]
    assert names[3:] == ["images/groups.png", "images/curves.png"]
    return folder


def test_the_table_is_what_the_runs_wrote(runs: Path, out: Path) -> None:
    table = pd.read_csv(out / "compare.csv")
    assert table["run"].tolist() == ["sep/s0", "sep/s1", "siamese_gia/s0", "siamese_gia/s1"]
    assert list(table.columns[:4]) == ["run", "preset", "seed", "val_map50"]  # and no more keys
    for row in table.itertuples():
        path = runs / row.run
        facts, test = read_json(path / "run.json"), read_json(path / "test" / "metrics.json")
        history = pd.read_csv(path / "csv" / "metrics.csv")
        assert row.test_map50 == pytest.approx(test["map50"])
        assert row.test_aer == pytest.approx(test["aer"])
        assert row.val_map50 == pytest.approx(history["val/map50"].max(), abs=1e-4)
        assert (row.steps, row.parameters) == (facts["steps"], facts["parameters"])
        assert row.images_per_second == pytest.approx(
            facts["train_images"] / facts["train_seconds"]
        )


def test_intervals_are_those_of_the_paired_bootstrap(
    runs: Path, out: Path, tiny_data: Path
) -> None:
    coco = read_json(tiny_data / "annotations" / "test.json")
    tallies = {
        preset: [
            tally_run(coco, read_run(runs / preset / f"s{s}", coco).predictions) for s in seeds
        ]
        for preset, seeds in RUNS.items()
    }
    expected = compare_presets(tallies, reference="sep", resamples=50)["siamese_gia"].metrics
    content = json.loads((out / "compare.json").read_text())
    group = content["groups"][1]
    assert group["label"] == "preset=siamese_gia"
    for column, name in enumerate(METRICS):
        found = group["bootstrap"][f"test_{name}"]
        assert expected.difference is not None
        assert found["value"] == pytest.approx(float(expected.difference[column]))
        assert found["low"] <= found["value"] <= found["high"] or name in ("acc", "map50", "aer")
        assert found["low"] == pytest.approx(float(expected.low[column]))  # type: ignore[index]
    difference = group["differences"]["test_map50"]
    assert difference["paired_seeds"] == 2
    assert difference["value"] == pytest.approx(group["bootstrap"]["test_map50"]["value"])


def test_predictions_that_are_gone_cost_the_intervals_only(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy, ignore=shutil.ignore_patterns("checkpoints"))
    (copy / "sep" / "s1" / "test" / "predictions.json").unlink()
    compare([copy], tmp_path / "out")
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert content["bootstrap_note"].startswith("No paired bootstrap: ")
    assert "predictions.json is missing" in content["bootstrap_note"]
    assert content["groups"][1]["bootstrap"] is None
    assert len(content["runs"]) == 4
    assert "preset=siamese_gia" in capsys.readouterr().out


def test_a_killed_and_a_damaged_run_are_listed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy, ignore=shutil.ignore_patterns("checkpoints"))
    facts = read_json(copy / "sep" / "s0" / "run.json")
    facts = {key: value for key, value in facts.items() if key not in ("steps", "status")}
    (copy / "sep" / "s0" / "run.json").write_text(json.dumps(facts))
    metrics = copy / "siamese_gia" / "s1" / "test" / "metrics.json"
    metrics.write_text(metrics.read_text()[:100])
    compare([copy], tmp_path / "out", resamples=0)
    printed = capsys.readouterr().out
    assert "sep/s0          unfinished" in printed
    assert "siamese_gia/s1  damaged" in printed
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [run["run"] for run in content["runs"]] == ["sep/s1", "siamese_gia/s0"]
    assert [run["state"] for run in content["left_out"]] == ["unfinished", "damaged"]


def test_only_damaged_runs_are_an_error(runs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(runs / "sep" / "s0", bad, ignore=shutil.ignore_patterns("checkpoints"))
    (bad / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"none of 1 runs can be compared, first .*bad: damaged"):
        compare([bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_comparison_replaces_the_first(runs: Path, tmp_path: Path) -> None:
    images = tmp_path / "out" / "images"
    images.mkdir(parents=True)
    (images / "sensitivity_old.png").touch()
    (images / "mine.png").touch()
    compare([runs / "sep"], tmp_path / "out", resamples=0)
    compare([runs / "siamese_gia" / "s0"], tmp_path / "out", resamples=0)
    assert len(pd.read_csv(tmp_path / "out" / "compare.csv")) == 1
    assert sorted(path.name for path in images.iterdir()) == ["curves.png", "mine.png"]


def test_the_command_groups_as_asked_and_prints_where_all_is(
    runs: Path, tmp_path: Path, programs: Programs
) -> None:
    options = ["--out", str(tmp_path), "--by=seed", "--ref=seed=1", "--resamples=0"]
    done = programs.run("deepacc_lightning.compare", str(runs), *options)
    assert done.returncode == 0, done.stderr
    assert "difference to seed=1" in done.stdout
    assert "note: Groups mix runs that differ in preset" in done.stdout
    assert f"comparison       {tmp_path / 'compare.html'}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{runs}/nowhere"], "nowhere does not exist: name directories of runs by RUNS="),
        (["{data}"], "no run was found under"),
        (["{runs}", "--by=nope"], "BY=nope is no key of these runs"),
        (["{runs}", "--ref=nope"], "REF=nope is no group: there is preset=sep"),
        (["{runs}", "--out={data}/dataset.json"], "cannot be written"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(
    runs: Path,
    tiny_data: Path,
    tmp_path: Path,
    *,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [text.format(runs=runs, data=tiny_data) for text in arguments]
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: main([f"--out={tmp_path / 'out'}", *given]))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_a_reference_that_fits_nothing_is_an_error(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="REF=aam"):
        compare([runs], tmp_path, reference="aam")


def browse(page: Path, profile: Path, *options: str) -> str:
    """Opens a page in Chromium, apart from any network, and returns what it prints."""
    assert CHROMIUM is not None
    program = [CHROMIUM, "--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars"]
    program += ["--enable-unsafe-swiftshader", f"--user-data-dir={profile}"]
    # No host name resolves: what the page wanted from outside would be missing.
    program += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        program.append("--no-sandbox")  # Chromium has none for root
    program += [*options, page.as_uri()]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=240)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_draws_in_a_browser_without_network(out: Path, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    browse(
        out / "compare.html",
        tmp_path / "profile",
        f"--screenshot={shot}",
        "--window-size=1200,1600",
    )
    pixels = np.asarray(Image.open(io.BytesIO(shot.read_bytes())).convert("RGB"), dtype=int)
    assert pixels.shape == (1600, 1200, 3)
    accent = np.abs(pixels - (0x00, 0x72, 0xB2)).max(axis=2) < 4
    assert accent.sum() > 300  # the dots of runs and the chosen tab


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_sorts_filters_and_changes_plots(out: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    clicks = """<script>
        const head = [...document.querySelectorAll("#runs th button")];
        head.find((button) => button.textContent === "val map50").click();
        document.getElementById("filter").value = "GIA s";
        document.getElementById("filter").dispatchEvent(new Event("input"));
        document.querySelectorAll("#bars .tabs button")[1].click();
    </script></body>"""
    page.write_text((out / "compare.html").read_text().replace("</body>", clicks))
    document = browse(page, tmp_path / "profile", "--dump-dom", "--window-size=1200,5000")
    assert document.count("js-plotly-plot") >= 6
    rows = re.findall(r'<tr[^>]*data-search="([^"]*)"([^>]*)>', document)
    table = pd.read_csv(out / "compare.csv").sort_values("val_map50", ascending=False)
    assert [text.split()[0] for text, _ in rows] == table["run"].tolist()
    assert all(("hidden" in rest) == ("gia" not in text) for text, rest in rows)
    bars = document[document.index('<section id="bars"') :]
    figures = re.findall(r"<figure( hidden[^>]*)?>", bars[: bars.index("</section>")])
    assert [bool(hidden) for hidden in figures] == [True, False, True, True]
