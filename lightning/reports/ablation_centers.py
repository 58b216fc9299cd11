"""How often the local centers of an ablation's presets are right, as one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn

from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.evaluation.explain.center_quality import (
    OUTCOMES,
    CenterQuality,
    measure_center_quality,
)
from deepacc_lightning.train import build_datamodule
from deepacc_lightning.training.heads_protocol import device_of

DELTAS = (0.0, 0.5, 0.9, 0.99, 0.999)


def has_margin_branch(model: nn.Module) -> bool:
    """Whether a detector has scores to choose local centers by."""
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    return getattr(predictor, "margin_branch", None) is not None


def measure_centers(
    cfg: DictConfig, checkpoints: Mapping[str, Path], images: int
) -> dict[str, CenterQuality]:
    """Judges the local centers of each preset that has a margin branch, on validation images.

    Args:
        cfg: a training config of the same data and scale.
        checkpoints: one by preset.
        images: how many validation images, evenly spaced.

    Returns:
        By preset; those without a margin branch are left out.
    """
    cfg = cfg.copy()
    cfg.data.max_val_images = images
    # Validation images, so that delta may be chosen by what is found.
    datamodule = build_datamodule(cfg)
    found = {}
    for preset, path in checkpoints.items():
        model = build_from_checkpoint(read_checkpoint(path), path)
        if not has_margin_branch(model):
            continue
        model = model.to(memory_format=torch.channels_last).to(device_of(cfg)).eval()
        with torch.no_grad():
            found[preset] = measure_center_quality(
                model, datamodule.val_dataloader(), datamodule.coco("val"), DELTAS
            )
    return found


def centers_markdown(qualities: Mapping[str, CenterQuality], *, heading: str = "#") -> str:
    """Returns the table by preset and delta, in percent, as Markdown.

    Args:
        qualities: by preset, of the same images.
        heading: the mark before the title.
    """
    rows = []
    for preset, quality in qualities.items():
        present = quality.present.sum()
        sums = (quality.outcomes, quality.absent, quality.pairs, quality.right_partners)
        for delta, outcomes, absent, pairs, right in zip(
            quality.deltas, *(counts.sum(axis=1) for counts in sums), strict=True
        ):
            centers = outcomes.sum()
            shares = [_percent(n, centers) for n in (*outcomes, pairs)]
            covered = _percent(centers - absent, present)
            rows.append([f"`{preset}`", f"{delta:g}", covered, *shares, _percent(right, pairs)])
    count = next(iter(qualities.values())).num_images
    outcomes_shown = [name.replace("_", " ").title() for name in OUTCOMES]
    table = tabulate(
        rows,
        ["Preset", "delta", "Covered", *outcomes_shown, "Paired", "Partner Right"],
        tablefmt="github",
        disable_numparse=True,
    )
    return (
        f"{heading} Local centers\n\n"
        "Whether the most confident proposal of a class is a chromosome of that class, by the "
        f"least score asked for; first seed, {count} validation images, in percent. Covered: "
        "classes in the image that have a local center. The next four columns: what the centers "
        "lie on. Paired: centers with a second proposal elsewhere in the image; Partner Right: "
        "those of these that are on a chromosome of the class.\n\n"
        f"{table}\n"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"
