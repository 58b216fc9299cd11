"""DeepACC-D2: detection and classification of human chromosomes on metaphase images."""

from __future__ import annotations

TYPE_CHECKING = False  # `from typing import` would be most of this module's import time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deepacc_d2.cell import Cell as Cell
    from deepacc_d2.cell import Chromosome as Chromosome
    from deepacc_d2.images.read import read_image as read_image
    from deepacc_d2.prediction.api import Image
    from deepacc_d2.prediction.predictor import Predictor
    from deepacc_d2.prediction.predictor import load_predictor as load_predictor

__version__ = "0.1.0"

__all__ = ["Cell", "Chromosome", "load_predictor", "predict", "read_image"]

_PLACES = {
    "Cell": "deepacc_d2.cell",
    "Chromosome": "deepacc_d2.cell",
    "load_predictor": "deepacc_d2.prediction.predictor",
    "read_image": "deepacc_d2.images.read",
}


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
    """Finds and classifies the chromosomes of metaphase images.

    The same as ``deepacc predict`` gives, as objects. Detectron2 is loaded with the first call
    only.

    >>> from deepacc_d2.data.synthetic import SyntheticConfig, render_metaphase
    >>> image, truth = render_metaphase(SyntheticConfig(seed=4), case=0, cell=0)
    >>> (cell,) = predict(image)
    >>> cell.name, len(cell.chromosomes) > 0
    ('image1', True)

    Args:
        images: a file, a folder, a pattern such as ``slides/**/*.tif``, an array (H, W) or
            (H, W, 3), or several paths or arrays.
        checkpoint: a path, or a predictor of :func:`load_predictor` to keep over several calls;
            by default the shipped DeepACC.
        cases: which images are of one case: ``"folder"`` or a CSV file with file,case.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        normalize: find the spread and bring it to the size and tone of training.
        min_foreground: least probability of being a chromosome; by default the checkpoint's.
        tta: in how many turned and mirrored copies, 1 to 8, an image is looked at; by default the
            checkpoint's.
        prior_strength: of the prior on copy numbers; by default the checkpoint's, 0 for none.

    Returns:
        A :class:`~deepacc_d2.cell.Cell` for each image, in the order of the list.

    Raises:
        UserError: a file is no image, nothing is there, or an option is wrong; one line each.
    """
    from deepacc_d2.prediction.api import predict as run

    return run(
        images,
        checkpoint=checkpoint,
        cases=cases,
        device=device,
        precision=precision,
        normalize=normalize,
        min_foreground=min_foreground,
        tta=tta,
        prior_strength=prior_strength,
    )


if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_PLACES[name]), name)
        return value

    def __dir__():
        return sorted({*globals(), *_PLACES})
