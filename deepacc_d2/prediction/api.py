"""``deepacc_d2.predict``: images in, cells out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepacc_d2.cell import Cell
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.gray import as_gray
from deepacc_d2.images.read import read_image
from deepacc_d2.prediction.inputs import list_images
from deepacc_d2.prediction.predictor import Predictor, load_predictor

Image = str | Path | NDArray[Any]
OPTIONS = ("device", "precision", "normalize", "min_foreground", "tta", "prior_strength")
DEFAULTS = ("auto", "32-true", True, None, None, None)


def predict(
    images: Image | Sequence[Image],
    *,
    checkpoint: str | Path | Predictor | None = None,
    cases: str | Path | None = None,
    device: str = "auto",
    precision: str = "32-true",
    normalize: bool = True,
    min_foreground: float | None = None,
    tta: int | None = None,
    prior_strength: float | None = None,
) -> list[Cell]:
    """Finds and classifies the chromosomes of metaphase images; see :func:`deepacc_d2.predict`."""
    items = [images] if isinstance(images, str | Path | np.ndarray) else list(images)
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    if arrays and len(arrays) < len(items):
        raise ConfigError("images mixes arrays and paths: predict them in two calls")
    if isinstance(checkpoint, Predictor):
        given = (device, precision, normalize, min_foreground, tta, prior_strength)
        for name, value, default in zip(OPTIONS, given, DEFAULTS, strict=True):
            if value != default:
                raise ConfigError(f"{name} is for a predictor yet to be made")
        predictor = checkpoint
    else:
        predictor = load_predictor(
            checkpoint,
            device=device,
            precision=precision,
            normalize=normalize,
            min_foreground=min_foreground,
            tta=tta,
            prior_strength=prior_strength,
        )
    if arrays:
        return [
            predictor.cell(as_gray(array), name=f"image{number}")
            for number, array in enumerate(arrays, start=1)
        ]
    paths = [item for item in items if not isinstance(item, np.ndarray)]
    skipped: dict[Path, str] = {}
    inputs = list_images(paths, cases, skipped=skipped)
    for path, line in skipped.items():
        warnings.warn(f"{path}: {line}", stacklevel=3)
    return [
        predictor.cell(
            read_image(found.path).gray,
            name=found.name,
            path=str(found.path),
            case_id=found.case_id,
        )
        for found in inputs
    ]
