"""Run directories are found wherever they are, and what cannot be compared is said, not dropped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.comparison.runs import find_runs, read_runs

MakeRun = Callable[..., Path]


def test_runs_are_found_below_at_and_by_patterns_each_once(
    make_run: MakeRun, tmp_path: Path
) -> None:
    a, b = make_run("sweep/a"), make_run("sweep/deep/er/b")
    other = make_run("other")
    assert find_runs([tmp_path / "sweep"]) == [a, b]
    assert find_runs([b, tmp_path / "sweep"]) == [b, a]
    assert find_runs([f"{tmp_path}/sw*", f"{tmp_path}/oth??"]) == [a, b, other]


def test_a_directory_whose_name_is_a_pattern_is_taken_as_it_is(make_run: MakeRun) -> None:
    run = make_run("lr=[1,2]")
    assert find_runs([run]) == [run]


def test_what_is_no_run_is_not_searched(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a")
    for inside in ("checkpoints", "wandb/offline", ".hidden", "cache"):
        make_run(f"a/{inside}")
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "compare.json").write_text("{}")
    assert find_runs([tmp_path]) == [run]


def test_paths_without_runs_get_a_line(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"nowhere does not exist: name .* RUNS="):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(DataError, match=r"no run was found under .*empty"):
        find_runs([make_run("a"), tmp_path / "empty"])
    with pytest.raises(DataError, match="no runs were named"):
        find_runs([])


def test_the_best_validation_is_chosen_not_the_last(make_run: MakeRun) -> None:
    (run,), left_out = read_runs([make_run("a", level=50, epochs=4)])
    assert not left_out
    assert run.best() == {"map50": 51.0, "aer": 60.0, "epoch": 2.0}
    assert run.validation()["val/map50"].tolist() == [35.0, 43.0, 51.0, 43.0]
    assert run.test is not None
    assert run.test["map50"] == 50.0


def test_the_score_of_the_checkpoint_counts_where_curves_lack_it(make_run: MakeRun) -> None:
    best = {"monitor": "val/map50", "score": 77.5, "checkpoint": "x"}
    path = make_run("a", facts={"status": "finished", "best": best})
    (path / "csv" / "metrics.csv").unlink()
    (run,), _ = read_runs([path])
    assert run.best()["map50"] == 77.5
    assert run.history.empty


def test_an_epoch_validated_again_after_a_continuation_counts_once(make_run: MakeRun) -> None:
    path = make_run("a", level=50)
    with (path / "csv" / "metrics.csv").open("a") as stream:
        stream.write("3,39,,,60.0,40.0\n")
    (run,), _ = read_runs([path])
    assert run.validation()["val/map50"].tolist() == [35.0, 43.0, 51.0, 60.0]
    assert run.best()["epoch"] == 3.0


def broken(path: Path, how: str) -> None:
    facts = json.loads((path / "run.json").read_text())
    if how in ("running", "interrupted", "failed"):
        (path / "run.json").write_text(json.dumps({**facts, "status": how}))
    elif how == "old unfinished":
        (path / "run.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "steps"}))
    elif how == "cut":
        (path / "run.json").write_text(json.dumps(facts)[:50])
    elif how == "list":
        (path / "run.json").write_text("[1]")
    elif how == "no facts":
        (path / "run.json").unlink()
    elif how == "config":
        (path / "config.yaml").write_text("preset: [\n")
    elif how == "csv":
        (path / "csv" / "metrics.csv").write_text("what,is,this\n1,2,3\n")
    elif how == "words":
        (path / "csv" / "metrics.csv").write_text("epoch,step,train/loss\n0,1,high\n")
    elif how == "test":
        (path / "test" / "metrics.json").write_text('{"map50": "good"}')
    elif how == "untested":
        (path / "test" / "metrics.json").unlink()
    elif how == "mark":
        (path / "run.json").unlink()
        (path.parent / f".{path.name}.failed").write_text("out of\nmemory\n")
    elif how == "failed.txt":
        (path / "run.json").write_text(json.dumps({**facts, "status": "failed"}))
        (path / "failed.txt").write_text("training diverged at step 7\n")


@pytest.mark.parametrize(
    ("how", "state", "reason"),
    [
        ("running", "unfinished", "still running, or killed, 40 steps logged"),
        ("interrupted", "unfinished", "interrupted, 40 steps logged"),
        ("failed", "failed", "its training failed"),
        ("old unfinished", "unfinished", "still running, or killed"),
        ("cut", "damaged", "run.json is no complete JSON"),
        ("list", "damaged", "run.json holds no table"),
        ("no facts", "unfinished", "no run.json"),
        ("config", "damaged", "config.yaml is no YAML"),
        ("csv", "damaged", "metrics.csv cannot be read (it has no columns epoch and step)"),
        ("words", "damaged", "metrics.csv cannot be read"),
        ("test", "damaged", "metrics.json has no number 'map50'"),
        ("untested", "unfinished", "trained, but not tested"),
        ("mark", "failed", "out of memory"),
        ("failed.txt", "failed", "training diverged at step 7"),
    ],
)
def test_a_run_that_cannot_be_compared_is_listed_and_spoils_nothing(
    make_run: MakeRun, tmp_path: Path, how: str, state: str, reason: str
) -> None:
    good, bad = make_run("runs/good"), make_run("runs/bad")
    broken(bad, how)
    runs, left_out = read_runs(find_runs([tmp_path / "runs"]))
    assert [run.path for run in runs] == [good]
    (only,) = left_out
    assert (only.path, only.name, only.state) == (bad, "bad", state)
    assert reason in only.reason
    assert "\n" not in only.reason


def test_a_run_that_was_not_to_be_tested_is_compared(make_run: MakeRun) -> None:
    runs, left_out = read_runs([make_run("a", test=False, facts={"status": "finished"})])
    assert not left_out
    assert runs[0].test is None


def test_an_ablations_trunk_is_told_apart(make_run: MakeRun) -> None:
    trunk = make_run("trunk", test=False, **{"ablation.protocol": "heads"})
    config = trunk / "config.yaml"
    config.write_text(config.read_text().replace("test: true", "test: false"))
    runs, (left_out,) = read_runs([make_run("sep/seed0"), trunk])
    assert [run.name for run in runs] == ["sep/seed0"]
    assert left_out.state == "not a rival"


def test_a_dangling_link_does_not_end_the_search(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert find_runs([tmp_path]) == [run]
