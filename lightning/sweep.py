"""``make sweep``: many trainings over a grid or a search space, and the best of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from filelock import FileLock

from deepacc_d2.errors import ConfigError
from deepacc_d2.files import write_json
from deepacc_d2.partial import clear_files
from deepacc_d2.sole_use import sole_use
from deepacc_lightning import train
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.launchers import check_extra
from deepacc_lightning.jobs.progress import values_text
from deepacc_lightning.jobs.runner import run_program, running
from deepacc_lightning.jobs.sweep_check import check_folder, check_origins
from deepacc_lightning.jobs.sweep_plan import Sweep, make_plan, shown
from deepacc_lightning.reports.sweep_report import report

BEGINNING = 30.0
"""Seconds within which another process of the same sweep has written down what it is."""


def run(overrides: Sequence[str]) -> list[Job]:
    """Runs the sweep that the overrides describe, or continues it.

    Returns:
        Its jobs; those that are not done have failed.

    Raises:
        UserError: bad input, reported before anything starts.
        KeyboardInterrupt: after what was trained has been saved.
    """
    train.quiet()
    sweep = make_plan(overrides)
    settings = sweep.cfg.sweep
    optuna = settings.sweeper == "optuna"
    check_extra(settings.launcher, f"LAUNCHER={settings.launcher}")
    check_extra(settings.sweeper, f"SWEEPER={settings.sweeper}")
    check_trials(sweep, check_origins(sweep.found))
    # Processes may share a sweep, but not with a training, nor with another sweep that begins now.
    with sole_use(sweep.folder, wait=BEGINNING):
        make_run_dir(sweep.folder)
        clear_files([sweep.folder])
        check_folder(sweep.folder, sweep.manifest)
        if not (sweep.folder / "sweep.json").is_file():
            write_json(sweep.folder / "sweep.json", sweep.manifest)
    for note in sweep.notes:
        print(f"note: {note}", flush=True)
    total = settings.trials if optuna else len(sweep.jobs)
    with running(sweep.folder, sweep.cfg, total, sweep.request.hydra) as runner:
        jobs = list(sweep.jobs)
        if optuna:
            from deepacc_lightning.jobs.sweep_optuna import search

            jobs = search(sweep, runner)
        else:
            done = sum(job.done for job in jobs)
            print(f"{total} jobs, {done} done -> {shown(sweep.folder)}", flush=True)
            runner.run(jobs)
    with FileLock(sweep.folder / ".report.lock"):
        report(sweep, jobs)
    return jobs


def check_trials(sweep: Sweep, fingerprints: set[str]) -> None:
    """Checks that the trials in an Optuna sweep's folder were of its data sets.

    Raises:
        ConfigError: one was not.
    """
    for path in [] if sweep.jobs else sorted(sweep.folder.glob("*/run.json")):
        origin = json.loads(path.read_text(encoding="utf-8")).get("data") or {}
        if origin.get("fingerprint") not in fingerprints:
            raise ConfigError(
                f"{path.parent} holds a run on another data set: choose another OUT, or remove it"
            )


def main() -> None:
    """Entry point.

    Exits 1 if jobs failed, 2 on bad input, 130 on Ctrl-C and 143 on SIGTERM, with one line each.
    """
    jobs = run_program(run, "sweep") or []
    failed = [job for job in jobs if not job.done]
    for job in failed:
        print(f"failed: {values_text(job)}: {job.reason()}", file=sys.stderr)
    if failed:
        print(
            f"{len(failed)} of {len(jobs)} jobs failed, see log.txt in their folders; the same "
            "command tries them again",
            file=sys.stderr,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
