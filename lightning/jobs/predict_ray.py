"""``engine=ray`` of ``make predict``: the same results, by Ray Data over a cluster's machines.

Every machine must see the images and the output folder under the same paths. An actor holds the
model; what it writes is what Lightning's path writes, by the same functions, and only paths and
errors pass through Ray.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from deepacc_d2.errors import ConfigError
from deepacc_d2.prediction.folder import OutputFolder
from deepacc_d2.prediction.inputs import Input
from deepacc_d2.prediction.outputs import draw
from deepacc_d2.prediction.predictor import load_predictor
from deepacc_lightning.jobs.predict_loop import ImageFiles, predict_image

Batch = dict[str, Any]


class CellActor:
    """Predicts and writes the cells of the images that it is given.

    Args:
        options: of :func:`load_predictor`.
        root: the output folder.
        drawings: options of :func:`deepacc_d2.prediction.outputs.write_cell`.
    """

    def __init__(self, options: dict[str, Any], root: str, drawings: dict[str, Any]) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.predictor = load_predictor(**options, device=device)
        self.folder = OutputFolder(Path(root))
        self.drawings = drawings

    def __call__(self, batch: Batch) -> Batch:
        """Predicts images.

        Args:
            batch: arrays ``path``, ``name`` and ``case`` (empty for none), of one length.

        Returns:
            ``path`` and ``error`` of each, the latter empty where all is well.
        """
        items = [
            Input(Path(str(path)), str(name), str(case) or None)
            for path, name, case in zip(batch["path"], batch["name"], batch["case"], strict=True)
        ]
        files = ImageFiles(items, self.predictor.detector.view)
        errors = [self._write(files, index) for index in range(len(items))]
        return {"path": batch["path"], "error": np.array(errors, dtype=object)}

    def _write(self, files: ImageFiles, index: int) -> str:
        loaded, cell = predict_image(self.predictor, files[index])
        if loaded.gray is None or cell is None:
            return loaded.error
        return draw(self.folder, loaded.gray, cell, self.drawings)


def predict_cells(
    cfg: DictConfig, todo: list[Input], folder: OutputFolder, drawings: dict[str, Any]
) -> list[tuple[str, str]]:
    """Predicts images on a Ray cluster, or a Ray of this machine where none is named.

    Args:
        cfg: of ``make predict``; ``ray`` in it names the cluster, and the actors and what each
            of them takes.
        todo: the images.
        folder: where results go.
        drawings: what is drawn of each cell.

    Returns:
        Path and message of each image that could not be used.

    Raises:
        ConfigError: Ray is not installed, or its cluster cannot be reached.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"engine=ray needs Ray Data ({error}): make setup EXTRAS=ray, or engine=lightning"
        ) from error
    started = not ray.is_initialized()
    try:
        ray.init(address=cfg.ray.address, ignore_reinit_error=True, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"ray.address={cfg.ray.address} is no cluster that answers ({error}): start it by "
            "`ray start --head`, or leave the address out"
        ) from error
    try:
        options = OmegaConf.to_container(
            OmegaConf.masked_copy(
                cfg, ["normalize", "precision", "min_foreground", "tta", "prior_strength"]
            )
        )
        assert isinstance(options, dict)
        rows = [
            {"path": str(item.path.absolute()), "name": item.name, "case": item.case_id or ""}
            for item in todo
        ]
        results = ray.data.from_items(rows).map_batches(
            CellActor,
            fn_constructor_kwargs={
                "options": {**options, "checkpoint": cfg.ckpt},
                "root": str(folder.root),
                "drawings": drawings,
            },
            batch_size=cfg.ray.batch_size,
            compute=ray.data.ActorPoolStrategy(size=cfg.ray.actors),
            num_cpus=cfg.ray.num_cpus,
            num_gpus=cfg.ray.num_gpus,
        )
        return [
            (str(row["path"]), str(row["error"])) for row in results.iter_rows() if row["error"]
        ]
    finally:
        if started:
            ray.shutdown()
