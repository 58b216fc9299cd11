"""Lightning's CSV logger, for runs that are resumed in their directory."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning import loggers
from pytorch_lightning.core.saving import save_hparams_to_yaml
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from deepacc_d2.files import whole_file


class _Writer(ExperimentWriter):
    """Continues a file, which Lightning's deletes, and writes whole ones.

    Lightning empties files before it writes them anew: a process that is killed then loses them.
    """

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Records what a run is, and saves it."""
        self.hparams.update(params)
        with whole_file(Path(self.log_dir) / self.NAME_HPARAMS_FILE) as temporary:
            save_hparams_to_yaml(temporary, self.hparams)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self._write(fieldnames, rows)

    def _write(self, fieldnames: list[str], rows: list[dict[str, Any]]) -> None:
        with (
            whole_file(Path(self.metrics_file_path)) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, fieldnames=fieldnames, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])

    def forget_from(self, step: int) -> None:
        """Drops what was logged from a step on: a resumed training logs it again."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        # A killed process may have left half a line, without a step.
        kept = [
            row for row in rows if (row.get("step") or "").isdigit() and int(row["step"]) < step
        ]
        self._write(self.metrics_keys, kept)


class CSVLogger(loggers.CSVLogger):
    """Lightning's ``CSVLogger``, which keeps the curves that its directory has already."""

    @property
    def experiment(self) -> Any:
        """Returns the writer; does nothing but in the main process."""
        if self._experiment is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._experiment = _Writer(log_dir=self.log_dir)
        return super().experiment

    def forget_from(self, step: int) -> None:
        """Drops the curves from a step on; see the writer."""
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self.experiment.forget_from(step)
