"""Optuna over a sweep's space, by Hydra's launchers.

Hydra's own plugin for Optuna (hydra-optuna-sweeper 1.3.0) is not used: it takes Optuna 2 only, of
2021, whose storage on disk fails with today's SQLAlchemy; it counts its trials anew each time it is
started, forgets the ones that ran when it was stopped, and ends at the first batch with a failed
job. Here the study is in the sweep's folder, and several processes may work on it.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from hydra.core.override_parser.types import IntervalSweep, Override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from deepacc_d2.sole_use import is_held
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.runner import Runner
from deepacc_lightning.jobs.sweep_plan import Sweep, parse, shown, values_of

DIGITS = 4
"""Significant digits of what is trained: of a sampled 0.0731844012 the rest would only be noise in
names of folders and in commands."""
OWNER = "owner"
"""Attribute of a trial: the process that runs it, by the name of a lock that it holds."""


class Study:
    """An Optuna study in a sweep's folder, which several processes may work on.

    Args:
        sweep: the sweep.
    """

    def __init__(self, sweep: Sweep) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.sweep = sweep
        self.folder = sweep.folder
        self.distributions = {k: distribution(parse(f"{k}={v}")) for k, v in sweep.space.items()}
        # A killed process leaves no such lock behind; Optuna's own ones stay for half a minute.
        lock: Any = FileLock(self.folder / ".optuna.lock")
        backend = JournalFileBackend(str(self.folder / "optuna.log"), lock)
        self.study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name="sweep",
            direction="maximize",
            load_if_exists=True,
        )
        self.owner = uuid.uuid4().hex
        # Held as long as this process lives, so that others can tell its trials from a dead one's.
        self.life = FileLock(self._life(self.owner))
        self.life.acquire()

    def _life(self, owner: str) -> Path:
        return self.folder / f".owner-{owner}.lock"

    def _alive(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(OWNER, "")
        return owner == self.owner or is_held(self._life(owner))

    def leave(self) -> None:
        """Gives up the trials of this process that are not done, for others to take."""
        self.life.release()
        self._life(self.owner).unlink(missing_ok=True)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Returns the trials in some states."""
        return self.study.get_trials(deepcopy=False, states=states)

    def complete(self, trial: FrozenTrial) -> bool:
        """Whether it has a value of each key: one that was killed as it was drawn has not."""
        return trial.params.keys() == self.distributions.keys()

    def retry_failed(self) -> None:
        """Puts the values of failed trials on the list of those to come, each once."""
        with FileLock(self.folder / ".ask.lock"):
            open_states = (TrialState.COMPLETE, TrialState.RUNNING)
            known = [trial.params for trial in self.trials(*open_states)]
            known += [
                t.system_attrs.get("fixed_params", {}) for t in self.trials(TrialState.WAITING)
            ]
            for trial in self.trials(TrialState.FAIL):
                if self.complete(trial) and trial.params not in known:
                    self.study.enqueue_trial(trial.params)
                    known.append(trial.params)

    def take(self, wanted: int, count: int, given_up: int) -> dict[int, Job]:
        """Takes trials to run: those of dead processes, then new ones.

        Args:
            wanted: how many are to be complete in the end.
            count: how many to take at most.
            given_up: how many of this process failed, which are not made up for.

        Returns:
            Jobs by the number of their trial.
        """
        taken: dict[int, Job] = {}
        with FileLock(self.folder / ".ask.lock"):
            running = self.trials(TrialState.RUNNING)
            for trial in [t for t in running if not self._alive(t)]:
                if not self.complete(trial):
                    self.study.tell(trial.number, state=TrialState.FAIL)
                elif len(taken) < count:
                    taken[trial.number] = self.job(trial.params)
            alive = sum(self._alive(trial) for trial in running)
            left = wanted - given_up - len(self.trials(TrialState.COMPLETE)) - alive - len(taken)
            for _ in range(min(left, count - len(taken))):
                # A sampler seeded the same each time would begin with the same values again.
                number = len(self.study.get_trials(deepcopy=False))
                self.study.sampler = optuna.samplers.TPESampler(
                    seed=self.sweep.cfg.seed + number, constant_liar=True
                )
                asked = self.study.ask(self.distributions)
                asked.set_user_attr(OWNER, self.owner)
                taken[asked.number] = self.job(asked.params)
        return taken

    def job(self, params: Mapping[str, Any]) -> Job:
        """Makes the job of a trial's values."""
        return self.sweep.job({k: text_of(params[k], d) for k, d in self.distributions.items()})

    def tell(self, number: int, job: Job) -> None:
        """Notes what became of a trial."""
        if job.done:
            self.study.tell(number, job.result()["objective"], skip_if_finished=True)
        else:
            self.study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def others_at_work(self) -> bool:
        """Whether trials run in other processes."""
        running = self.trials(TrialState.RUNNING)
        return any(t.user_attrs.get(OWNER) != self.owner and self._alive(t) for t in running)

    def jobs(self) -> list[Job]:
        """Returns the jobs of all trials with values, each once."""
        states = (TrialState.COMPLETE, TrialState.FAIL)
        found = [self.job(trial.params) for trial in self.trials(*states) if self.complete(trial)]
        return list(dict.fromkeys(found))


def search(sweep: Sweep, runner: Runner) -> list[Job]:
    """Runs trials until as many are complete as were asked for, less those that failed now.

    Args:
        sweep: the sweep.
        runner: runs the jobs.

    Returns:
        The jobs of all trials so far.
    """
    settings = sweep.cfg.sweep
    study = Study(sweep)
    runner.progress.add(study.jobs())
    done = len(study.trials(TrialState.COMPLETE))
    print(f"{settings.trials} trials, {done} done -> {shown(study.folder)}", flush=True)
    study.retry_failed()
    given_up = 0
    try:
        while True:
            taken = study.take(settings.trials, settings.jobs, given_up)
            if taken:
                runner.run(list(dict.fromkeys(taken.values())))
                for number, job in taken.items():
                    study.tell(number, job)
                    given_up += not job.done
            elif study.others_at_work():
                time.sleep(1.0)
            else:
                return study.jobs()
    finally:
        study.leave()


def distribution(override: Override) -> BaseDistribution:
    """Returns Optuna's distribution of a key's sweep in Hydra's grammar.

    ``interval(a, b)`` gives real numbers and ``int(interval(a, b))`` whole ones, ``tag(log, ...)``
    makes either logarithmic. Values of ``choice`` and ``range`` are taken as having no order.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        log = "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)
    return CategoricalDistribution(values_of(override))


def text_of(value: Any, of: BaseDistribution) -> str:
    """Returns a sampled value as a text of Hydra's grammar, real numbers to a few digits."""
    if isinstance(of, FloatDistribution):
        rounded = float(f"{value:.{DIGITS}g}")
        return str(min(max(rounded, of.low), of.high))
    return str(value)
