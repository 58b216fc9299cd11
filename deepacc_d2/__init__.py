"""DeepACC-D2: detection and classification of human chromosomes on metaphase images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepacc_d2.cell import Cell

__version__ = "0.1.0"


def predict(images: Any, **options: Any) -> list[Cell]:
    """Finds and classifies the chromosomes of metaphase images.

    The same as ``make predict`` gives, as objects. Detectron2 is loaded with the first call only.

    Args:
        images: a file, a folder, a pattern such as ``slides/**/*.tif``, an array (H, W) or
            (H, W, 3), or several paths or arrays.
        options: ``checkpoint`` (a path, or a predictor of
            :func:`deepacc_d2.prediction.predictor.load_predictor` to keep over several calls;
            default: the shipped DeepACC), ``cases`` (``"folder"`` or a CSV file), and those of
            ``load_predictor``: ``device``, ``precision``, ``normalize``, ``min_foreground``,
            ``prior_strength``.

    Returns:
        A :class:`~deepacc_d2.cell.Cell` for each image, in the order of the list.

    Raises:
        UserError: a file is no image, nothing is there, or an option is wrong; one line each.
    """
    from deepacc_d2.prediction.api import predict as run

    return run(images, **options)
