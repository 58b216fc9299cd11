"""Lightning's W&B logger, without a warning that a user can do nothing about."""

from __future__ import annotations

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
