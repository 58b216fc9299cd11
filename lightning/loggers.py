"""Lightning's W&B logger, without a warning that a user can do nothing about."""

from __future__ import annotations

import json
import secrets
import string
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers


class WandbLogger(loggers.WandbLogger):
    """Lightning's ``WandbLogger``; takes the same arguments.

    Lightning always passes ``anonymous``, which W&B has dropped and warns of on every run.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self._wandb_init.get("anonymous") is None:
            self._wandb_init.pop("anonymous", None)


def wandb_run_id(out: Path, checkpoint: str | None = None) -> str:
    """Returns W&B's id for a run.

    Args:
        out: the run directory.
        checkpoint: what the run continues from, or null.

    Returns:
        The id in ``run.json`` where the run goes on in the directory that its checkpoint lies in,
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
