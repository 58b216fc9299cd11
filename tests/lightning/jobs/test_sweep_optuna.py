"""Optuna over a tiny space: trials for real, more of them, dead processes, failures, values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deepacc_d2.errors import ConfigError
from deepacc_lightning import sweep
from deepacc_lightning.jobs.sweep_plan import Sweep, make_plan, parse

pytest.importorskip("optuna")

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from deepacc_lightning.jobs.sweep_optuna import Study, distribution, text_of

SPACE = ["m=interval(0.1,0.4)", "s=tag(log,interval(16,64))", "sweep.sweeper=optuna"]


@pytest.fixture
def plan(shared_overrides: list[str], tmp_path: Path) -> Sweep:
    folder = tmp_path / "s"
    folder.mkdir()
    plan = make_plan([*shared_overrides, "experiment=aam", *SPACE, f"sweep.dir={tmp_path / 'n'}"])
    plan.folder.mkdir()
    return plan


def finish(study: Study, taken: dict[int, object], objective: float) -> None:
    for number, job in taken.items():
        job.out.mkdir(parents=True, exist_ok=True)
        (job.out / "job.json").write_text(json.dumps({"objective": objective}))
        study.tell(number, job)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0.1,0.4)", FloatDistribution(0.1, 0.4)),
        ("a=tag(log,interval(0.1,0.4))", FloatDistribution(0.1, 0.4, log=True)),
        ("a=int(interval(0,1000))", IntDistribution(0, 1000)),
        ("a=tag(log,int(interval(16,64)))", IntDistribution(16, 64, log=True)),
        ("a=8,16,null", CategoricalDistribution(["8", "16", "null"])),
        ("a=b,c", CategoricalDistribution(["b", "c"])),
        ("a=range(1,4)", CategoricalDistribution(["1", "2", "3"])),
    ],
)
def test_hydras_sweeps_are_optunas_distributions(text: str, expected: object) -> None:
    assert distribution(parse(text)) == expected


def test_values_are_rounded_within_their_interval() -> None:
    assert text_of(0.0731844012, FloatDistribution(0.01, 1.0)) == "0.07318"
    assert text_of(1.234567e-5, FloatDistribution(1e-5, 1.0)) == "1.235e-05"
    assert text_of(0.123449, FloatDistribution(0.12346, 1.0)) == "0.12346"
    assert text_of(7, IntDistribution(0, 10)) == "7"
    assert text_of("null", CategoricalDistribution(["8", "null"])) == "null"


def test_a_trial_of_a_dead_process_is_run_again_and_one_of_a_live_one_is_not(plan: Sweep) -> None:
    first = Study(plan)
    taken = first.take(3, 1, 0)
    second = Study(plan)
    others = second.take(3, 3, 0)
    assert len(others) == 2  # three are wanted, and one is at work
    assert not taken.keys() & others.keys()
    assert second.others_at_work()
    finish(second, others, 10.0)
    assert second.take(3, 3, 0) == {}
    first.leave()
    assert second.take(3, 3, 0) == taken
    assert not second.others_at_work()


def test_more_trials_are_n_less_the_complete_ones(plan: Sweep) -> None:
    study = Study(plan)
    finish(study, study.take(2, 8, 0), 10.0)
    assert study.take(2, 8, 0) == {}
    study.leave()
    again = Study(plan)
    taken = again.take(5, 8, 0)
    assert len(taken) == 3
    names = [job.out.name for job in [*again.jobs(), *taken.values()]]
    assert len(set(names)) == 5  # a study gone on with does not draw the same values again


def test_failed_trials_are_tried_again_by_the_next_command_and_end_this_one(plan: Sweep) -> None:
    study = Study(plan)
    taken = study.take(1, 1, 0)
    (number, job) = next(iter(taken.items()))
    study.tell(number, job)  # it is not done
    assert study.study.trials[number].state == TrialState.FAIL
    assert study.take(1, 1, given_up=1) == {}
    study.leave()
    again = Study(plan)
    again.retry_failed()
    again.retry_failed()
    assert list(again.take(1, 8, 0).values()) == [job]


def test_the_study_prefers_what_was_good(plan: Sweep) -> None:
    study = Study(plan)
    for _ in range(30):
        for number, job in study.take(100, 1, 0).items():
            m = float(dict(job.values)["m"])
            finish(study, {number: job}, 100 - 100 * abs(m - 0.2))
    found = [trial.params["m"] for trial in study.trials(TrialState.COMPLETE)]
    late = [abs(m - 0.2) for m in found[20:]]
    early = [abs(m - 0.2) for m in found[:10]]
    assert sum(late) / len(late) < sum(early) / len(early)


def test_trials_for_real_then_two_more(
    shared_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "s"
    overrides = [*shared_overrides, "experiment=aam", *SPACE, f"sweep.dir={folder}", "test=false"]
    jobs = sweep.run([*overrides, "sweep.trials=3"])
    assert len(jobs) == 3
    assert all(job.done for job in jobs)
    assert "3 trials, 0 done" in capsys.readouterr().out
    before = {job.out: (job.out / "job.json").stat().st_mtime_ns for job in jobs}
    more = sweep.run([*overrides, "sweep.trials=5"])
    assert len(more) == 5
    assert {out: (out / "job.json").stat().st_mtime_ns for out in before} == before
    printed = capsys.readouterr().out
    assert "5 trials, 3 done" in printed
    assert "[5/5] m=" in printed
    results = json.loads((folder / "results.json").read_text())
    assert len(results["jobs"]) == 5
    assert results["best"]["test"] is None
    assert not list(folder.glob(".owner-*"))
    # Trials of other settings would mislead the search.
    with pytest.raises(ConfigError, match=r"settings\.scale\.max_epochs: 1 there, 2 now"):
        sweep.run([*overrides, "sweep.trials=5", "scale.max_epochs=2"])
