"""``make sweep``: many trainings over a grid or a search space, and the best of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from filelock import FileLock
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from deepacc_d2.errors import ConfigError, UserError
from deepacc_lightning import train
from deepacc_lightning.core.cli import fail, one_line
from deepacc_lightning.core.config import config_dir
from deepacc_lightning.core.run_info import make_run_dir, write_json
from deepacc_lightning.jobs.sweep_jobs import SweepJob
from deepacc_lightning.jobs.sweep_launch import JobSweeper, Progress, check_extra, values_text
from deepacc_lightning.jobs.sweep_plan import Sweep, make_plan, shown
from deepacc_lightning.reports.sweep_report import report
from deepacc_lightning.training.callbacks import format_duration
from deepacc_lightning.training.stopping import Terminated


def run(overrides: Sequence[str]) -> list[SweepJob]:
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
    check_data(sweep)
    make_run_dir(sweep.folder)
    if not (sweep.folder / "sweep.json").is_file():
        write_json(sweep.folder / "sweep.json", sweep.manifest)
    for note in sweep.notes:
        print(f"note: {note}", flush=True)
    total = settings.trials if optuna else len(sweep.jobs)
    began = time.time()
    GlobalHydra.instance().clear()
    with (
        initialize_config_dir(config_dir(), version_base="1.3", job_name="sweep"),
        Progress(total, began) as progress,
    ):
        sweeper = JobSweeper(sweep, began, progress)
        jobs = list(sweep.jobs)
        if optuna:
            from deepacc_lightning.jobs.sweep_optuna import search

            jobs = search(sweeper)
        else:
            done = sum(job.done for job in jobs)
            print(f"{total} jobs, {done} done -> {shown(sweep.folder)}", flush=True)
            sweeper.sweep(jobs)
    with FileLock(sweep.folder / ".report.lock"):
        report(sweep, jobs)
    return jobs


def check_data(sweep: Sweep) -> None:
    """Draws or reads the sweep's data sets, and checks that the jobs of its folder were of them.

    Done once and here: jobs of several processes would all draw a missing one.

    Raises:
        UserError: what lies there is no data set, or a job was begun on another one.
    """
    fingerprints: dict[str, str] = {}
    for training in sweep.found:
        data = training.data
        if data not in fingerprints:
            fingerprints[data] = train.build_datamodule(training.cfg).info().fingerprint
        if sweep.jobs:
            training.job.check_origin(fingerprints[data], None)
    if sweep.jobs:
        return
    for path in sorted(sweep.folder.glob("*/run.json")):
        origin = json.loads(path.read_text(encoding="utf-8")).get("data") or {}
        if origin.get("fingerprint") not in fingerprints.values():
            raise ConfigError(
                f"{path.parent} holds a run on another data set: choose another OUT, or remove it"
            )


def main() -> None:
    """Entry point.

    Exits 1 if jobs failed, 2 on bad input, 130 on Ctrl-C and 143 on SIGTERM, with one line each.
    """
    began = time.monotonic()
    try:
        jobs = run(sys.argv[1:])
    except UserError as error:
        fail(error)
    except (HydraException, OmegaConfBaseException) as error:
        fail(ConfigError(one_line(error)))
    except OSError as error:
        fail(UserError(f"{error.filename or 'disk'}: {error.strerror or error}"))
    except (KeyboardInterrupt, Terminated) as error:
        print("interrupted: the same command goes on where it was stopped", file=sys.stderr)
        sys.exit(143 if isinstance(error, Terminated) else 130)
    print(f"done in {format_duration(time.monotonic() - began)}", flush=True)
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
