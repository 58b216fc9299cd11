"""Where classes that configs name have moved, so that older checkpoints and runs still load."""

from __future__ import annotations

from typing import Any

MOVED = {
    "deepacc_d2.modeling.sampling.ChromosomeRPN": "deepacc_d2.modeling.rpn.ChromosomeRPN",
    "deepacc_d2.data.crowding": "deepacc_d2.data.augment.crowding",
    "deepacc_d2.data.degrade": "deepacc_d2.data.augment.degrade",
    "deepacc_d2.data.transforms": "deepacc_d2.images.transforms",
    "deepacc_lightning.callbacks": "deepacc_lightning.training.callbacks",
    "deepacc_lightning.csv_logger": "deepacc_lightning.training.csv_logger",
    "deepacc_lightning.loggers": "deepacc_lightning.wandb.loggers",
    "deepacc_lightning.stopping": "deepacc_lightning.training.stopping",
}
"""Dotted names of modules and classes: where they were, and where they are."""


def present_name(target: str) -> str:
    """Returns the dotted name that a ``_target_`` has now.

    >>> present_name("deepacc_d2.data.transforms.RandomTone")
    'deepacc_d2.images.transforms.RandomTone'
    >>> present_name("detectron2.data.transforms.RandomFlip")
    'detectron2.data.transforms.RandomFlip'
    """
    for old, new in MOVED.items():
        if target == old or target.startswith(old + "."):
            return new + target[len(old) :]
    return target


def with_present_names(node: Any) -> Any:
    """Returns nested plain containers with every ``_target_`` by its present name."""
    if isinstance(node, dict):
        return {
            key: present_name(value)
            if key == "_target_" and isinstance(value, str)
            else with_present_names(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [with_present_names(value) for value in node]
    return node
