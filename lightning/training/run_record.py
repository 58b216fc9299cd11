"""``run.json``: what a run is, how far it came and what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from deepacc_d2.errors import Terminated
from deepacc_d2.files import write_json
from deepacc_d2.secret import redacted
from deepacc_lightning.core.processes import is_main_process
from deepacc_lightning.core.run_info import describe_run


class RunRecord:
    """Keeps ``run.json`` of a run directory true, from its start to whatever ends it.

    Its ``status`` is ``running``, ``finished``, ``interrupted`` (by a signal; it can be resumed) or
    ``failed``; a run that was killed stays ``running``. ``best`` is the checkpoint that was chosen
    by validation, with its score. Only the main process writes.

    Args:
        out: the run directory.
        facts: about the run, with those of :func:`~deepacc_lightning.core.run_info.describe_run`.
    """

    def __init__(self, out: Path, **facts: Any) -> None:
        self.path = out / "run.json"
        self.facts = describe_run(status="running", best=None, **facts)

    def add(self, **facts: Any) -> None:
        """Adds facts, without secrets, and writes the file."""
        self.facts.update(redacted(facts))
        if is_main_process():
            write_json(self.path, self.facts)

    @contextmanager
    def keep(self, trainer: pl.Trainer) -> Iterator[None]:
        """Notes how what happens within ends."""
        self.add()
        status = "failed"
        try:
            yield
            status = "finished"
        except (KeyboardInterrupt, Terminated):
            status = "interrupted"
            raise
        finally:
            self.add(status=status, best=best_checkpoint(trainer))


def best_checkpoint(trainer: pl.Trainer) -> dict[str, Any] | None:
    """Returns the best checkpoint's path, what it was chosen by, and its score; null for none."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            score = callback.best_model_score
            return {
                "monitor": callback.monitor,
                "score": float(score) if isinstance(score, torch.Tensor) else None,
                "checkpoint": callback.best_model_path,
            }
    return None
