"""W&B: one run a job, offline unless asked, and never in the way of a training."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import string
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

from pytorch_lightning import loggers
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from deepacc_d2.evaluation.types import ImagePrediction, Metrics
from deepacc_d2.secret import redacted
from deepacc_lightning.core.run_info import remote_has_login
from deepacc_lightning.wandb.connection import online_problem

STEP = "trainer/global_step"
"""What Lightning calls the optimizer steps done; the x axis of all curves."""
LOWER_IS_BETTER = ("aer",)


class WandbLogger(loggers.WandbLogger):
    """Lightning's ``WandbLogger``, which stays out of the way of a training.

    Offline it needs no login and no network. Online, where there is no login or the server does
    not answer, it says so in one line and logs offline, for ``wandb sync``. The run's summary keeps
    the best of each validation metric besides the last.

    Args:
        images: test images in the table of an evaluation, at most; 0 for none.
        image_size: longer side in pixels that they are scaled down to.
        start_timeout: seconds that a server has to answer at the start.
        finish_timeout: seconds that it has at the end for what was not sent yet.
        offline: whether nothing is to be sent.
        options: of Lightning's ``WandbLogger`` and of ``wandb.init``.
    """

    def __init__(
        self,
        *,
        images: int = 12,
        image_size: int = 1024,
        start_timeout: float = 10.0,
        finish_timeout: float = 30.0,
        offline: bool = False,
        **options: Any,
    ) -> None:
        # W&B's reports about its own errors: sent to a server that does not answer, they would hold
        # up the end of the program, and offline nothing is to be sent.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if offline:
            # Lightning's own way is an environment variable, which a sweep's next job would keep.
            options["mode"] = "offline"
        super().__init__(**options)
        self.images, self.image_size = images, image_size
        self.start_timeout, self.finish_timeout = start_timeout, finish_timeout

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; the first use begins it."""
        import wandb

        if self._experiment is None and wandb.run is None and not hasattr(self, "_attach_id"):
            self._experiment = self._begin()
        return super().experiment

    def _begin(self) -> Any:
        import wandb

        # Told by WANDB_MODE too, which wandb.init obeys where nothing else is said.
        mode = self._wandb_init.get("mode") or wandb.setup().settings.mode
        problem = online_problem(self.start_timeout) if mode == "online" else None
        run = None
        if problem is None:
            try:
                run = self._init(mode)
            except wandb.errors.Error as error:
                if mode != "online":
                    raise
                problem = f"W&B does not start online ({shorten(str(error), 160)})"
                # Its process would take the run's id for one in use.
                wandb.teardown()
        if run is None:
            run = self._init("offline")
            warn(f"{problem}: logging offline", run)
        define_metrics(run)
        return run

    def _init(self, mode: str) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=self.start_timeout,
            finish_timeout=self.finish_timeout,
            finish_timeout_raises=True,
            # Its own note of the repository leaves a token in the address that is a user's name.
            disable_git=remote_has_login(),
        )
        # Without what is null: of Lightning's `anonymous` W&B warns on every run.
        given = {key: value for key, value in self._wandb_init.items() if value is not None}
        with command_without_secrets():
            return wandb.init(**{**given, "mode": mode, "settings": settings})

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Notes the best checkpoint's score in the summary, as ``best/val_map50``.

        The summary's own ``val/map50.max`` is that of one process: it begins anew in a run that
        continues.
        """
        super().after_save_checkpoint(checkpoint_callback)
        score = checkpoint_callback.best_model_score
        if checkpoint_callback.monitor and score is not None:
            name = checkpoint_callback.monitor.replace("/", "_")
            self.experiment.summary[f"best/{name}"] = float(score)

    @rank_zero_only
    def log_evaluation(
        self,
        coco: Mapping[str, Any],
        predictions: Iterable[ImagePrediction],
        metrics: Metrics,
        image_root: Path,
        *,
        prefix: str = "test",
    ) -> None:
        """Logs images with boxes, the confusion matrix and tables by class and group.

        Args:
            coco: the ground truth.
            predictions: of the same split.
            metrics: computed from these two.
            image_root: folder that the images' ``file_name`` is relative to.
            prefix: of the keys.
        """
        from deepacc_lightning.wandb.report import evaluation_media

        media = evaluation_media(
            coco,
            list(predictions),
            metrics,
            image_root,
            num_images=self.images,
            image_size=self.image_size,
        )
        run = self.experiment
        # Tables' images wait for their upload there; by default in the home directory, which a
        # cluster's node may not have, and where nobody would look for them.
        with default_variable("WANDB_DATA_DIR", str(Path(run.dir).parents[1])):
            run.log({f"{prefix}/{key}": value for key, value in media.items()})

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """Ends the run, in W&B's list as finished or, with an exit code, as failed.

        On return its file is whole.
        """
        import wandb

        run, self._experiment = self._experiment, None
        if run is None:
            return
        try:
            run.finish(exit_code=exit_code)
        except TimeoutError:
            warn(f"the W&B server took over {self.finish_timeout:g} s for the end of the run", run)
        except Exception as error:  # of W&B's own process; the training is done and on disk
            warn(f"W&B could not end the run ({type(error).__name__})", run)
        if wandb.run is None:
            # W&B's process writes the end of the file, of a short run all but 7 bytes, after
            # Run.finish has returned: a job that is killed right then would lose it. This waits.
            wandb.teardown()


@contextmanager
def command_without_secrets() -> Iterator[None]:
    """Lets W&B see the command line without secrets, as it notes that in the run's metadata."""
    before = sys.argv
    sys.argv = redacted(before)
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def default_variable(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable for a while, unless the user has."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def warn(problem: str, run: Any) -> None:
    """Prints a problem in one line, and how the run is uploaded later."""
    folder = shlex.quote(str(Path(run.dir).parent))
    text = f"warning: {problem}; upload it later by `wandb sync {folder}`"
    print(text, file=sys.stderr, flush=True)


def run_columns(config: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a run is found by in a list of runs: its whole config, and flat keys with it.

    Args:
        config: the resolved config, nested; ``alpha``, ``preset``, ``seed`` and others are at its
            root already. Null for none.
        facts: as in ``run.json``.
    """
    data = facts["data"]
    columns = {
        **(config or {}),
        "scale_name": facts["scale"],
        "data_name": data["name"],
        "data_fingerprint": data["fingerprint"],
        "git_revision": facts["git"]["revision"],
        "git_dirty": facts["git"]["dirty"],
        **{key: facts[key] for key in ("preset", "seed", "parameters", "device") if key in facts},
    }
    found: dict[str, Any] = redacted(columns)
    return found


def define_metrics(run: Any) -> None:
    """Tells W&B the x axis of all curves, and what is the best of each validation metric.

    In the run's summary a validation metric gets ``max`` (``min`` where lower is better) next to
    ``last``, as in ``val/map50.max``.
    """
    from deepacc_d2.evaluation.types import SUMMARY_KEYS

    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    for key in SUMMARY_KEYS:
        best = "min" if key in LOWER_IS_BETTER else "max"
        run.define_metric(f"val/{key}", step_metric=STEP, step_sync=True, summary=f"{best},last")


@contextmanager
def finished_runs(made: Iterable[Any]) -> Iterator[None]:
    """Ends the W&B runs of some loggers, whatever happens within.

    Without it a Hydra multirun would log its next job into this one's run.

    Args:
        made: loggers of any kind.
    """
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        for logger in made:
            if isinstance(logger, WandbLogger):
                logger.finish(exit_code)


def wandb_run_id(out: Path, checkpoint: str | None = None) -> str:
    """Returns W&B's id for a run.

    Args:
        out: the run directory.
        checkpoint: what the run continues from, or null.

    Returns:
        The id in ``run.json`` if the run continues in the directory of its checkpoint,
        else a new one: of two runs that branch off from one checkpoint neither is the first.
    """
    if checkpoint and out.resolve() in Path(checkpoint).resolve().parents:
        try:
            known = json.loads((out / "run.json").read_text(encoding="utf-8")).get("wandb_id")
        except (OSError, ValueError):
            known = None
        if known:
            return str(known)
    # Not from the seeded generator, which would give every run of a seed one id.
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
