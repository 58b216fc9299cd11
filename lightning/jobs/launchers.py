"""Launchers: what each needs installed, its options, and its processes' share of the cores."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection

import torch
from omegaconf import DictConfig

from deepacc_d2.errors import UserError
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.jobs.train_job import train_one

PLUGINS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "submitit": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
    "optuna": ("optuna",),
}
"""Modules of each optional extra of this project that a sweep uses."""
WEEK = 7 * 24 * 60
"""Minutes after which submitit ends a local job; its default of an hour is meant for Slurm."""


class MissingExtraError(UserError):
    """An optional extra is not installed."""


def check_extra(name: str, variable: str) -> None:
    """Checks that an optional extra is installed.

    Args:
        name: of the extra.
        variable: what asked for it, such as ``LAUNCHER=joblib``.

    Raises:
        MissingExtraError: names the command that installs it.
    """
    for module in PLUGINS.get(name, ()):
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise MissingExtraError(
                f"{variable} needs {module.rpartition('.')[2]}, which is not installed: make setup "
                f"EXTRAS={name}"
            )


def launcher_overrides(settings: DictConfig, given: Sequence[str]) -> list[str]:
    """Returns the overrides of Hydra's own config that choose a launcher.

    Args:
        settings: the ``sweep`` node.
        given: what the user said of the launcher; it goes last, and holds.
    """
    jobs, cores = settings.jobs, os.cpu_count() or 1
    plain = [f"hydra/launcher={settings.launcher}"]
    if settings.launcher == "joblib":
        plain += [f"hydra.launcher.n_jobs={jobs}"]
    elif settings.launcher == "submitit" and shutil.which("sbatch"):
        plain = ["hydra/launcher=submitit_slurm", f"hydra.launcher.array_parallelism={jobs}"]
    elif settings.launcher == "submitit":
        plain = ["hydra/launcher=submitit_local", f"hydra.launcher.timeout_min={WEEK}"]
        plain += [f"hydra.launcher.gpus_per_node={torch.cuda.device_count()}"]
    elif settings.launcher == "ray":
        plain += ["++hydra.launcher.ray.init.log_to_driver=false"]
        plain += [f"++hydra.launcher.ray.init.logging_level={logging.ERROR}"]
        if not any("ray.init.address" in text for text in given):
            # A Ray of our own: as many places as jobs, each with its share of the cores.
            plain += [f"++hydra.launcher.ray.init.num_cpus={max(cores, jobs)}"]
            plain += ["++hydra.launcher.ray.init.include_dashboard=false"]
            plain += [f"++hydra.launcher.ray.remote.num_cpus={max(1, cores // jobs)}"]
    return [*plain, *given]


def train_composed(config_name: str, overrides: Sequence[str]) -> None:
    """Trains one job in a process of its own."""
    train_one(compose_config(config_name, overrides))


class Processes:
    """A launcher for several jobs at a time on this machine that needs no extra installed.

    Each job has a process of its own: one that dies takes no other with it.

    Args:
        config_name: of the jobs' configs.
        jobs: how many at a time.
    """

    def __init__(self, config_name: str, jobs: int) -> None:
        self.config_name = config_name
        self.jobs = jobs
        # A fork of a process that has threads or a GPU would not work.
        self.context = multiprocessing.get_context("spawn")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        """Runs jobs and waits for them, as Hydra's launchers do.

        Raises:
            ChildProcessError: a process was killed.
        """
        waiting, running, failed = list(job_overrides), [], 0
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    arguments = (self.config_name, waiting.pop(0))
                    running.append(self.context.Process(target=train_composed, args=arguments))
                    running[-1].start()
                connection.wait([process.sentinel for process in running])
                ended = [process for process in running if not process.is_alive()]
                failed = failed or next((p.exitcode for p in ended if p.exitcode), 0)
                running = [process for process in running if process not in ended]
        except BaseException:
            for process in running:
                process.terminate()
            raise
        if failed:
            raise ChildProcessError(f"a process ended with status {failed}")


@contextmanager
def shared_cores(jobs: int) -> Iterator[None]:
    """Gives processes that are started within their share of the cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    if jobs > 1:
        for name in names:
            os.environ.setdefault(name, str(max(1, torch.get_num_threads() // jobs)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
