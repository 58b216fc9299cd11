"""``make explain``: a picture of how a checkpoint's branches classify one image."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from deepacc_d2.checkpoint import build_from_checkpoint, check_trusted, read_checkpoint
from deepacc_d2.data.dataset import read_info, read_split, to_dicts
from deepacc_d2.data.mapper import MetaphaseMapper, read_gray
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.explain.analysis import explain_image
from deepacc_d2.evaluation.explain.explanation import Explanation, format_explanation
from deepacc_d2.evaluation.explain.head_outputs import check_has_heads
from deepacc_d2.evaluation.explain.plot import plot_explanation
from deepacc_lightning.core.cli import (
    check_accelerator,
    check_data_root,
    run_entry_point,
    run_guarded,
)
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.run_info import make_run_dir, write_json
from deepacc_lightning.evaluate import AUGMENTATIONS, check_expected
from deepacc_lightning.train import quiet

register_resolvers()

FORMATS = (".png", ".pdf", ".svg")
DPI = 150


def find_data_root(image: Path) -> Path | None:
    """Returns the data set in whose ``images`` folder a file is, or None."""
    for folder in image.absolute().parents:
        if folder.name == "images" and (folder.parent / "dataset.json").is_file():
            return folder.parent
    return None


def find_record(image: Path, root: Path) -> dict[str, Any] | None:
    """Returns the dataset dict of an image: by its path, else by its bytes (a copy, or the source).

    Raises:
        DataError: there is no data set at ``root``, or it is broken.
    """
    read_info(root)
    splits = [s for s in SPLITS if (root / "annotations" / f"{s}.json").is_file()]
    records = [
        (coco, record)
        for coco in (read_split(root, s, may_lack=True) for s in splits)
        for record in coco["images"]
    ]

    def path_of(record: dict[str, Any]) -> Path:
        return root / "images" / record["file_name"]

    def is_copy(record: dict[str, Any]) -> bool:
        # Sizes are compared first, so that few files are read.
        return path_of(record).is_file() and filecmp.cmp(path_of(record), image, shallow=False)

    def is_it(record: dict[str, Any]) -> bool:
        return path_of(record).resolve() == image.resolve()

    for matches in (is_it, is_copy):
        for coco, record in records:
            if matches(record):
                objects = [a for a in coco["annotations"] if a["image_id"] == record["id"]]
                return to_dicts({**coco, "images": [record], "annotations": objects}, root)[0]
    return None


def describe_image(image: Path, root: str | None) -> dict[str, Any]:
    """Returns what the mapper needs of an image, with its ground truth where it has any.

    Args:
        image: the file.
        root: a data set that it is said to be of; None to look around the file.

    Raises:
        DataError: the file is no image, or not of that data set.
    """
    pixels = read_gray(image)
    data_root = find_data_root(image) if root is None else Path(root)
    record = None if data_root is None else find_record(image, data_root)
    if record is None and root is not None:
        raise DataError(f"image {image} is not in data set {root}: leave DATA out, or pass its own")
    height, width = pixels.shape
    bare = {"file_name": str(image), "image_id": 0, "height": height, "width": width}
    return record or {**bare, "boxes": np.zeros((0, 4), dtype=np.float32), "classes": None}


def output_path(out: str | None, checkpoint: Path, image: Path) -> Path:
    """Returns the picture's path; its folder is made.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    if out is None:
        folder = checkpoint.absolute().parent
        run_dir = folder.parent if folder.name == "checkpoints" else folder
        path = run_dir / "explain" / f"{image.stem}.png"
    elif Path(out).suffix.lower() in FORMATS and not Path(out).is_dir():
        path = Path(out).absolute()
    else:
        path = Path(out).absolute() / f"{image.stem}.png"
    make_run_dir(path.parent)
    return path


def load(checkpoint: str | Path) -> tuple[torch.nn.Module, MetaphaseMapper, dict[str, Any]]:
    """Returns a checkpoint's model, the input pipeline that it was tested with, and its config.

    Raises:
        DataError: the checkpoint is missing or damaged.
        ConfigError: its model has no ROI heads.
    """
    content = read_checkpoint(checkpoint)
    config = content["deepacc_config"]
    model = build_from_checkpoint(content, checkpoint).eval()
    check_has_heads(model)
    nodes = config["scale"]["test_augmentations"]
    check_trusted(nodes, extra=AUGMENTATIONS)
    mapper = MetaphaseMapper([instantiate(node) for node in nodes], is_train=False)
    return model.to(memory_format=torch.channels_last), mapper, config


def run(cfg: DictConfig) -> Explanation:
    """Explains one image and writes the picture, with a JSON of the same name next to it.

    Raises:
        UserError: a bad checkpoint, image, data set or output path.
    """
    quiet()
    check_data_root(cfg)
    check_accelerator(cfg.accelerator, "accelerator")
    if not 0 <= cfg.score_threshold <= 1:
        raise ConfigError(f"score_threshold={cfg.score_threshold} must be in [0, 1]")
    image, checkpoint = Path(cfg.image), Path(cfg.ckpt)
    model, mapper, config = load(checkpoint)
    check_expected(config, cfg)
    item = describe_image(image, cfg.data.root)
    if cfg.accelerator != "cpu" and torch.cuda.is_available():
        model.cuda()
    known = item["classes"] is not None
    explanation = explain_image(
        model,
        mapper(item),
        gt_boxes=item["boxes"] if known else None,
        gt_classes=item["classes"],
        score_threshold=cfg.score_threshold,
    )
    path = output_path(cfg.out, checkpoint, image)
    title = f"{image.name}: {config['preset']} ({config['scale']['name']}), {checkpoint.name}"
    facts = {
        "image": str(image.absolute()),
        "checkpoint": str(checkpoint.absolute()),
        "preset": config["preset"],
        "scale": config["scale"]["name"],
        "score_threshold": cfg.score_threshold,
        "width": item["width"],
        "height": item["height"],
        **explanation.to_dict(),
    }
    write(path, facts, plot_explanation(explanation, read_gray(image), title=title))
    print(format_explanation(explanation))
    print(f"\npicture          {path}\nnumbers          {path.with_suffix('.json')}", flush=True)
    return explanation


def write(path: Path, facts: dict[str, Any], figure: Any) -> None:
    """Writes picture and JSON by way of temporary files, so that neither is ever half there.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=DPI)
        write_json(path.with_suffix(".json"), facts)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}): choose another by OUT="
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="explain")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("explain", main)
