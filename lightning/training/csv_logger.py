"""Lightning's CSV logger, for runs that go on in their directory."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from deepacc_d2.files import whole_file


class _Writer(ExperimentWriter):
    """Goes on with a file; Lightning's deletes it."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])

    def forget_from(self, step: int) -> None:
        """Drops what was logged from a step on: a training that goes on logs it again."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        # A killed process may have left half a line, without a step.
        kept = [
            row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < step
        ]
        with (
            whole_file(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)


class CSVLogger(loggers.CSVLogger):
    """Lightning's ``CSVLogger``, which keeps the curves that its directory has already."""

    @property
    def experiment(self) -> Any:
        """Returns the writer; does nothing but in the main process."""
        if self._experiment is None and rank_zero_only.rank == 0:
            self._experiment = _Writer(log_dir=self.log_dir)
        return super().experiment

    def forget_from(self, step: int) -> None:
        """Drops the curves from a step on; see the writer."""
        if rank_zero_only.rank == 0:
            self.experiment.forget_from(step)
