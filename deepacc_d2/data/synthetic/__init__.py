"""Synthetic G-banded metaphases with ground truth, drawn from the human ideogram."""

from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.dataset import DEFAULT_SPLITS, ensure_dataset, write_dataset
from deepacc_d2.data.synthetic.render import render_metaphase

__all__ = [
    "DEFAULT_SPLITS",
    "SyntheticConfig",
    "ensure_dataset",
    "render_metaphase",
    "write_dataset",
]
