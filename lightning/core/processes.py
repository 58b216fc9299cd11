"""Several processes in one training: who they are and what they must agree on."""

from __future__ import annotations

import datetime
import os

from pytorch_lightning.plugins.environments import (
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import distributed

from deepacc_d2.errors import DataError

RUN_TIME = "DEEPACC_RUN_TIME"
"""Environment variable by which the processes of a run learn when it began."""
TIMEOUT = datetime.timedelta(minutes=2)
OTHER_LAUNCHERS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
"""What else may have started the processes of a run; Lightning looks for the same."""


class DisagreementError(DataError):
    """The processes of a training have different data; raised in all of them."""


def rank() -> int:
    """Returns this process's global rank, as launchers say it in the environment; 0 without one."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


def is_main_process() -> bool:
    """Says whether this process is the one that prints and writes."""
    return rank() == 0


def is_child() -> bool:
    """Says whether the main process of a run started this one.

    It takes any exit status of such a process but 0 for a failure of the run.
    """
    return rank() > 0 and not started_by_others()


def started_by_others() -> bool:
    """Says whether torchrun or a cluster's scheduler started all processes of a run."""
    return any(launcher.detect() for launcher in OTHER_LAUNCHERS)


def run_time(pattern: str) -> str:
    """Returns when the run began, the same in all its processes; names the run directory.

    The processes that a run starts itself inherit its environment. Those of torchrun were started
    together: the first one informs the others through torchrun's own store. Slurm restarts a
    preempted job under its old number, by which it finds its directory again.

    Args:
        pattern: as of ``strftime``.
    """
    if RUN_TIME not in os.environ:
        os.environ[RUN_TIME] = _begin(pattern)
    return os.environ[RUN_TIME]


def _begin(pattern: str) -> str:
    now = datetime.datetime.now().strftime(pattern)
    if SLURMEnvironment.detect():
        # Each srun of a job is a step, numbered anew when the job is run again.
        step = os.environ.get("SLURM_STEP_ID")
        return f"slurm-{os.environ['SLURM_JOB_ID']}" + (f".{step}" if step else "")
    if not distributed.is_torchelastic_launched():
        return now
    store = distributed.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=TIMEOUT,
        wait_for_workers=False,
    )
    # A restarted group counts on, and gets a directory of its own unless RESUME= or OUT= says so.
    key = f"deepacc_run_time_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if rank() == 0:
        store.set(key, now)
    value: str = store.get(key).decode()
    return value


def was_requeued() -> bool:
    """Says whether Slurm runs this job again, after a preemption or a failed node."""
    return SLURMEnvironment.detect() and os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


def check_same_everywhere(what: str, own: str, fix: str) -> None:
    """Checks that all processes have the same of something.

    Args:
        what: what it is.
        own: what this process has.
        fix: what to do where they differ.

    Raises:
        DisagreementError: in all processes, with the first that differs from process 0.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    found: list[str] = [""] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    for other, value in enumerate(found):
        if value != found[0]:
            raise DisagreementError(
                f"process {other} has {what} {value}, process 0 has {found[0]}: {fix}"
            )
