"""``make explain``: a picture of what ``make predict`` does with one image, stage by stage."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.data.dataset import read_info, read_split, to_dicts
from deepacc_d2.data.splits import SPLITS
from deepacc_d2.detection.detector import DEFAULT_CHECKPOINT, Detections, Proposals, to_image
from deepacc_d2.detection.network import TorchDetector, clip
from deepacc_d2.detection.runners import is_exported
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.explain.analysis import explain
from deepacc_d2.evaluation.explain.explanation import Explanation, format_explanation
from deepacc_d2.evaluation.explain.head_outputs import check_has_heads, read_images
from deepacc_d2.evaluation.explain.plot import plot_explanation
from deepacc_d2.files import whole_file, write_json
from deepacc_d2.images.read import read_image
from deepacc_d2.images.spread import Gray
from deepacc_d2.prediction.predictor import Predictor, load_predictor, order
from deepacc_lightning.core.cli import (
    check_accelerator,
    check_data_root,
    run_entry_point,
    run_guarded,
)
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.evaluate import check_expected
from deepacc_lightning.train import quiet

register_resolvers()

FORMATS = (".png", ".pdf", ".svg")
DPI = 150
# Of a proposal's overlap, however surely it is no chromosome.
LEAST_WEIGHT = 0.01


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


def find_truth(image: Path, root: str | None) -> dict[str, Any] | None:
    """Returns the dataset dict of an image, None where it is of no data set.

    Args:
        image: the file.
        root: a data set that it is said to be of; None to look around the file.

    Raises:
        DataError: the image is not of that data set, or that is broken.
    """
    data_root = find_data_root(image) if root is None else Path(root)
    record = None if data_root is None else find_record(image, data_root)
    if record is None and root is not None:
        raise DataError(f"image {image} is not in data set {root}: leave DATA out, or pass its own")
    return record


def output_path(out: str | None, checkpoint: str | None, image: Path) -> Path:
    """Returns the picture's path; its folder is made.

    By default it is in the run of the checkpoint, or in ``runs`` for the shipped one.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    if out is None:
        folder = Path("runs" if checkpoint is None else Path(checkpoint).parent).absolute()
        run_dir = folder.parent if folder.name == "checkpoints" else folder
        path = run_dir / "explain" / f"{image.stem}.png"
    elif Path(out).suffix.lower() in FORMATS and not Path(out).is_dir():
        path = Path(out).absolute()
    else:
        path = Path(out).absolute() / f"{image.stem}.png"
    make_run_dir(path.parent)
    return path


def load(checkpoint: str | Path | None, *, device: str = "auto") -> Predictor:
    """Returns what ``make predict`` runs for a checkpoint.

    Raises:
        DataError: the checkpoint is missing or damaged.
        ConfigError: it is exported, or its model has no ROI heads.
    """
    if checkpoint is not None and is_exported(checkpoint):
        raise ConfigError(f"CKPT={checkpoint} is exported and gives no features: pass a checkpoint")
    predictor = load_predictor(checkpoint, device=device)
    check_has_heads(network_of(predictor).core.model)
    return predictor


def network_of(predictor: Predictor) -> TorchDetector:
    """Returns a predictor's network, which PyTorch runs."""
    network = predictor.detector.network
    assert isinstance(network, TorchDetector)
    return network


def explain_image(
    predictor: Predictor,
    gray: Gray,
    gt_boxes: np.ndarray | None = None,
    gt_classes: np.ndarray | None = None,
    *,
    score_threshold: float = 0.5,
) -> tuple[Explanation, Detections]:
    """Explains what a predictor makes of an image; the rows are in the order of its cell.

    The network runs once more on the view on which ``make predict`` found its boxes, and what it
    says there is chosen from and interpreted by the same code. With test-time augmentation, this is
    the first of several looks, which are averaged as there: the branches and centers are those of
    the first look, boxes and classes those of the average.

    Args:
        predictor: of :func:`load`.
        gray: uint8 (H, W).
        gt_boxes: (G, 4) ground truth, if it is known.
        gt_classes: (G,) class indices.
        score_threshold: see :func:`explain`.
    """
    detector, network = predictor.detector, network_of(predictor)
    view = detector.first_look(gray).view

    def place(boxes: np.ndarray) -> np.ndarray:
        return to_image(gray, view, clip(boxes, view.image.shape))

    with network.computing():
        images = network.core.normalize(network.tensor(view.image))
        (heads,) = read_images(network.core.model, images, [place])
    assert heads.input_boxes is not None
    boxes, probabilities = clip(heads.input_boxes, view.image.shape), heads.result
    first = Proposals(boxes, probabilities.astype(np.float32), view)
    every = detector.look_again(first)
    found = detector.choose(gray, every)
    read = predictor.interpret(found)
    rows = order(found, read)
    kept, average = found.rows[rows], None
    if every is not first:
        shown, kept = nearest(every.boxes[kept], boxes, 1.0 - probabilities[:, -1])
        rows = [rows[n] for n in shown]
        average = found.boxes[rows], found.probabilities[rows]
    explanation = explain(
        heads,
        kept,
        gt_boxes,
        gt_classes,
        average=average,
        assigned=read.assigned[rows],
        confidences=read.confidences[rows],
        score_threshold=score_threshold,
    )
    return explanation, found


def nearest(
    boxes: np.ndarray, proposals: np.ndarray, foreground: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs boxes (n, 4) with the proposals (P, 4) that overlap them most, one to one.

    A chromosome has many proposals, of which context keeps one. ``foreground`` (P,), the
    probability of being any chromosome, weighs the overlap, so that it is this one.

    Returns:
        Indices of boxes and of their proposals, both (min(n, P),).
    """
    overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(proposals)).numpy()
    of_boxes, of_proposals = linear_sum_assignment(-overlap * (LEAST_WEIGHT + foreground))
    return of_boxes, of_proposals


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
    image, checkpoint = Path(cfg.image), Path(cfg.ckpt or DEFAULT_CHECKPOINT)
    config = read_checkpoint(checkpoint)["deepacc_config"]
    check_expected(config, cfg)
    predictor = load(checkpoint, device="cpu" if cfg.accelerator == "cpu" else "auto")
    gray = read_image(image).gray
    truth = find_truth(image, cfg.data.root)
    explanation, found = explain_image(
        predictor,
        gray,
        *((None, None) if truth is None else (truth["boxes"], truth["classes"])),
        score_threshold=cfg.score_threshold,
    )
    path = output_path(cfg.out, cfg.ckpt, image)
    title = f"{image.name}: {predictor.name}, {config['preset']} ({config['scale']['name']})"
    facts = {
        "image": str(image.absolute()),
        "checkpoint": str(checkpoint.absolute()),
        "preset": config["preset"],
        "scale": config["scale"]["name"],
        "settings": predictor.settings(),
        "score_threshold": cfg.score_threshold,
        "width": gray.shape[1],
        "height": gray.shape[0],
        "view": found.view.facts(),
        **explanation.to_dict(),
    }
    write(path, facts, plot_explanation(explanation, gray, title=title))
    print(f"{found.view.note}\n{format_explanation(explanation)}")
    print(f"\npicture          {path}\nnumbers          {path.with_suffix('.json')}", flush=True)
    return explanation


def write(path: Path, facts: dict[str, Any], figure: Any) -> None:
    """Writes picture and JSON by way of temporary files, so that neither is ever half there.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=DPI)
            write_json(path.with_suffix(".json"), facts)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}): choose another by OUT="
        ) from error


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="explain")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("explain", main)
