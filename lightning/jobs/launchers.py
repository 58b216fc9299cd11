"""Launchers: what each needs installed, its options, and its processes' share of the cores."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from omegaconf import DictConfig

from deepacc_d2.errors import Terminated, UserError
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.core.orphans import end_with_parent
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
    """Trains one job in another process."""
    train_one(compose_config(config_name, overrides))


class Processes:
    """A launcher for several jobs at a time on this machine that needs no extra installed.

    Args:
        config_name: of the jobs' configs.
        jobs: how many at a time.
    """

    def __init__(self, config_name: str, jobs: int) -> None:
        self.config_name = config_name
        self.jobs = jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        """Runs jobs and waits for them, as Hydra's launchers do."""
        # A fork of a process that has threads or a GPU would not work.
        with ProcessPoolExecutor(
            self.jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent
        ) as pool:
            names = [self.config_name] * len(job_overrides)
            try:
                list(pool.map(train_composed, names, job_overrides))
            except (KeyboardInterrupt, Terminated):
                for process in multiprocessing.active_children():
                    process.terminate()
                raise


def share_cores(jobs: int) -> None:
    """Gives processes that are started from now on their share of the cores."""
    if jobs > 1:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(max(1, torch.get_num_threads() // jobs)))
