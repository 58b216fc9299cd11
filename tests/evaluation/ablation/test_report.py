from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from deepacc_d2.chromosomes import DENVER_GROUPS
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.ablation import report as ablation_report
from deepacc_d2.evaluation.ablation.report import (
    format_metrics,
    update_section,
    write_ablation_report,
)
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.report import coco_results
from deepacc_d2.evaluation.types import ImagePrediction

FILES = [
    "metrics.json",
    "metrics.csv",
    "metrics.md",
    "confusions.md",
    "metrics.png",
    "confusions.png",
]
ABOUT = {
    "title": "Made up",
    "facts": {"device": "none", "lr": np.float32(0.5), "odd": float("nan")},
    "commands": ["make ablation SEEDS=2"],
}


def misnamed(predictions: list[ImagePrediction], share: float, seed: int) -> list[ImagePrediction]:
    """The same boxes, a share of them with the next class."""
    rng = np.random.default_rng(seed)
    found = []
    for p in predictions:
        final, top1 = ((rng.random(len(c)) < share) * 1 for c in (p.classes, p.top1_classes))
        found.append(
            ImagePrediction(
                p.image_id,
                p.boxes,
                p.scores,
                (p.classes + final) % 24,
                p.top1_boxes,
                p.top1_scores,
                (p.top1_classes + top1) % 24,
            )
        )
    return found


@pytest.fixture(scope="module")
def made(make_case, tmp_path_factory):
    """Ground truth, runs by preset in no order, and the metrics of each run."""
    root = tmp_path_factory.mktemp("runs")
    coco, predictions = make_case(0, num_images=8)
    runs: dict[str, list[Path]] = {}
    metrics = {}
    for preset, seeds, share in (
        ("mine", 1, 0.6),
        ("aam", 2, 0.1),
        ("sep", 2, 0.3),
        ("baseline", 1, 0.4),
    ):
        for seed in range(seeds):
            own = misnamed(predictions, share, seed)
            folder = root / f"{preset}_{seed}" / "test"
            folder.mkdir(parents=True)
            metrics[preset, seed] = compute_metrics(coco, own)
            (folder / "metrics.json").write_text(json.dumps(metrics[preset, seed].to_dict()))
            (folder / "predictions.json").write_text(json.dumps(coco_results(own)))
            top1 = json.dumps(coco_results(own, top1=True))
            (folder / "predictions_top1.json").write_text(top1)
            runs.setdefault(preset, []).append(folder.parent)
    return coco, runs, metrics


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    coco, runs, _ = made
    out = tmp_path_factory.mktemp("report") / "new" / "out"
    return out, write_ablation_report(out, runs, coco, **ABOUT, resamples=40)


def table_rows(text: str, header: str) -> dict[str, list[str]]:
    """Cells of the Markdown table with this start of its header, by preset."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[1].strip("`")] = cells
    return rows


def test_files_and_order(written):
    out, result = written
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert [path.name for path in result.files] == FILES
    assert list(result.presets) == ["baseline", "sep", "aam", "mine"]
    for name in ("metrics.png", "confusions.png"):
        picture = cv2.imread(str(out / name))
        assert min(picture.shape[:2]) > 300
        assert picture.std() > 10


def test_numbers_agree_with_the_metrics_of_the_runs(made, written):
    _, runs, metrics = made
    out, _ = written
    content = json.loads((out / "metrics.json").read_text())
    assert content["reference"] == "sep"
    assert content["facts"] == {"device": "none", "lr": 0.5, "odd": None}
    with (out / "metrics.csv").open() as stream:
        table = {row["preset"]: row for row in csv.DictReader(stream)}
    text = (out / "metrics.md").read_text()
    values = table_rows(text, "|  | Preset | Model | mAP | mAP_max | AER | Acc | Seeds")
    differences = table_rows(text, "|  | Preset | Δ mAP | Δ mAP_max | Δ AER | Δ Acc")
    assert list(differences) == ["baseline", "aam", "mine"]
    letters = {"baseline": "a", "sep": "b", "aam": "c", "mine": None}
    for preset, own in runs.items():
        entry = content["presets"][preset]
        assert entry["row"] == letters[preset]
        assert entry["runs"] == [str(run) for run in own]
        assert int(table[preset]["seeds"]) == entry["seeds"] == len(own)
        assert values[preset][0] == (f"({letters[preset]})" if letters[preset] else "")
        for column, key in enumerate(("map50", "map50_max", "aer", "acc")):
            expected = [getattr(metrics[preset, seed], key) for seed in range(len(own))]
            sep = np.mean([getattr(metrics["sep", seed], key) for seed in range(2)])
            estimate = entry["metrics"][key]
            np.testing.assert_allclose(estimate["values"], expected, atol=1e-2)
            assert float(table[preset][f"{key}_mean"]) == estimate["mean"]
            cell = values[preset][3 + column]
            if len(own) == 1:
                assert estimate["sd"] is None
                assert table[preset][f"{key}_sd"] == ""
                assert cell == f"{estimate['mean']:.2f}"
            else:
                assert cell == f"{estimate['mean']:.2f} ± {estimate['sd']:.2f}"
                assert estimate["sd"] == pytest.approx(np.std(expected, ddof=1), abs=2e-2)
            if preset == "sep":
                assert estimate["difference"] is None
                assert table[preset][f"{key}_low"] == ""
                continue
            found = estimate["difference"]
            assert found["value"] == pytest.approx(np.mean(expected) - sep, abs=2e-2)
            assert found["low"] < found["high"]
            assert float(table[preset][f"{key}_difference"]) == found["value"]
            assert float(table[preset][f"{key}_high"]) == found["high"]
            shown = f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
            assert differences[preset][2 + column] == shown
    # Fewer wrong names must show as such, beyond the choice of images.
    aam = content["presets"]["aam"]["metrics"]
    assert aam["map50"]["difference"]["low"] > 0
    assert aam["aer"]["difference"]["high"] < 0
    assert "make ablation SEEDS=2" in text
    assert "- device: none" in text


def test_confusions(made, written):
    _, _, metrics = made
    out, _ = written
    content = json.loads((out / "metrics.json").read_text())["presets"]
    text = (out / "confusions.md").read_text()
    total = table_rows(text, "|  | Preset | within group | between groups | missed | spurious")
    within = table_rows(text[text.index("## Within group") :], "|  | Preset | all | A | B")

    def mean(preset: str, key: str, groups) -> float:
        own = [m for (name, _), m in metrics.items() if name == preset]
        return float(np.mean([sum(m.per_group[group][key] for group in groups) for m in own]))

    for preset in ("baseline", "aam"):
        for column, key in enumerate(
            ("within_group_confusions", "between_group_confusions", "missed", "spurious")
        ):
            expected = mean(preset, key, DENVER_GROUPS)
            change = expected - mean("sep", key, DENVER_GROUPS)
            assert total[preset][2 + column].startswith(f"{expected:.1f} ({change:+.1f} [")
            assert content[preset]["errors"][key]["all"]["mean"] == expected
        in_c = mean(preset, "within_group_confusions", "C")
        change = in_c - mean("sep", "within_group_confusions", "C")
        assert within[preset][5] == f"{in_c:.1f} ({change:+.1f})"
    assert total["sep"][2] == f"{mean('sep', 'within_group_confusions', DENVER_GROUPS):.1f}"


def test_terminal(written):
    _, result = written
    text = format_metrics(result)
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert text.isascii()
    for block in (blocks[1], blocks[2][1:]):
        assert len({len(line.rstrip()) for line in block[1:2]}) == 1
        starts = [line.index(name) for line, name in zip(block[2:], _models(block), strict=True)]
        assert len(set(starts)) == 1
    assert "nan" not in text
    assert f"{result.presets['aam'].metrics.mean[0]:.2f} +- " in text


def _models(block: list[str]) -> list[str]:
    names = ["Faster R-CNN", "sep", "sep + AAM", "mine"]
    return names if len(block) == 6 else [name for name in names if name != "sep"]


def test_without_the_reference(made, tmp_path):
    coco, runs, _ = made
    some = {"aam": runs["aam"][:1], "baseline": runs["baseline"]}
    result = write_ablation_report(tmp_path, some, coco, **ABOUT)
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["reference"] is None
    assert content["presets"]["aam"]["metrics"]["acc"]["difference"] is None
    for text in (
        format_metrics(result),
        (tmp_path / "metrics.md").read_text(),
        (tmp_path / "confusions.md").read_text(),
    ):
        assert "No run of sep is among these" in text
        assert "[" not in text.replace("![", "")
    assert cv2.imread(str(tmp_path / "metrics.png")) is not None
    assert cv2.imread(str(tmp_path / "confusions.png")) is not None


def test_what_is_refused(made, tmp_path):
    coco, runs, _ = made
    sep = runs["sep"][0]
    with pytest.raises(ConfigError, match="no run is given"):
        write_ablation_report(tmp_path, {"sep": []}, coco, **ABOUT)
    with pytest.raises(ConfigError, match="is given twice"):
        write_ablation_report(tmp_path, {"sep": [sep], "aam": [sep]}, coco, **ABOUT)
    with pytest.raises(DataError, match=r"nowhere/test/metrics\.json is missing"):
        write_ablation_report(tmp_path, {"sep": [tmp_path / "nowhere"]}, coco, **ABOUT)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*file"):
        write_ablation_report(tmp_path / "file", {"sep": [sep]}, coco, **ABOUT)


def test_runs_that_contradict(made, tmp_path):
    coco, runs, _ = made

    def altered(name: str, **change) -> Path:
        folder = tmp_path / name / "test"
        folder.mkdir(parents=True)
        for file in (runs["aam"][0] / "test").iterdir():
            os.link(file, folder / file.name)
        content = json.loads((folder / "metrics.json").read_text())
        content["settings"] |= change.pop("settings", {})
        (folder / "metrics.json").unlink()
        (folder / "metrics.json").write_text(json.dumps({**content, **change}))
        return folder.parent

    def report(run: Path) -> None:
        write_ablation_report(tmp_path / "out", {"sep": runs["sep"], "aam": [run]}, coco, **ABOUT)

    with pytest.raises(DataError, match=r"strict was evaluated with .*0\.9.* alike"):
        report(altered("strict", settings={"score_threshold": 0.9}))
    with pytest.raises(DataError, match=r"better: its predictions give acc .* says 99"):
        report(altered("better", acc=99.0))
    newer = altered("newer", settings={"soft_nms": 1})
    with pytest.raises(DataError, match=r"settings of .*newer are not those of this version"):
        write_ablation_report(tmp_path / "out", {"sep": [newer]}, coco, **ABOUT)


def test_an_error_leaves_the_earlier_report(made, written, monkeypatch):
    coco, runs, _ = made
    out, _ = written
    before = (out / "confusions.png").read_bytes()

    def fails(_):
        raise RuntimeError("drawing failed")

    monkeypatch.setattr(ablation_report, "plot_confusions", fails)
    with pytest.raises(RuntimeError, match="drawing failed"):
        write_ablation_report(out, {"aam": runs["aam"]}, coco, **ABOUT)
    assert (out / "confusions.png").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)


def test_section_is_made_replaced_and_kept_apart(tmp_path):
    path = tmp_path / "docs" / "RESULTS.md"
    update_section(path, "real", "\n\none\n")
    assert path.read_text() == "<!-- begin real -->\none\n<!-- end real -->\n"
    path.write_bytes(b"# Results\r\n\r\ntext\n\n\n")
    update_section(path, "real", "one")
    update_section(path, "synthetic", "two \\1 \\g<0>")
    path.write_bytes(path.read_bytes() + b"tail")
    update_section(path, "real", "three\n\nfour")
    assert path.read_bytes() == (
        b"# Results\r\n\r\ntext\n\n<!-- begin real -->\nthree\n\nfour\n<!-- end real -->\n\n"
        b"<!-- begin synthetic -->\ntwo \\1 \\g<0>\n<!-- end synthetic -->\ntail"
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["RESULTS.md"]


def test_section_in_a_linked_file_keeps_link_and_mode(tmp_path):
    real = tmp_path / "real.md"
    real.write_text("text\n")
    real.chmod(0o640)
    link = tmp_path / "link.md"
    link.symlink_to(real)
    update_section(link, "a", "one")
    assert link.is_symlink()
    assert real.read_text().endswith("<!-- end a -->\n")
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "text",
    [
        "<!-- begin a -->\n",
        "<!-- end a -->\n",
        "<!-- end a -->\n<!-- begin a -->\n",
        "<!-- begin a -->\n<!-- end a -->\n<!-- begin a -->\n<!-- end a -->\n",
    ],
)
def test_section_markers_that_do_not_pair(tmp_path, text):
    path = tmp_path / "file.md"
    path.write_text(text)
    with pytest.raises(DataError, match=r"file\.md must have"):
        update_section(path, "a", "new")
    assert path.read_text() == text


def test_section_of_a_file_that_is_no_text(tmp_path):
    (tmp_path / "file.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read"):
        update_section(tmp_path / "file.md", "a", "new")
    with pytest.raises(ConfigError, match="cannot read"):
        update_section(tmp_path, "a", "new")
