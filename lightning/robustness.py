"""``make robustness``: what a detector loses on images as other laboratories would take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig
from tabulate import tabulate
from tqdm import tqdm

from deepacc_d2.data.dataset import read_split
from deepacc_d2.detection.detector import Detector, load_detector
from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.metrics import compute_metrics
from deepacc_d2.evaluation.variations import VARIATIONS
from deepacc_d2.files import write_json, write_text
from deepacc_d2.images.gray import as_gray
from deepacc_d2.images.read import read_gray
from deepacc_lightning.core.cli import alone, check_data_root, run_entry_point, run_guarded
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.run_info import describe_run, make_run_dir
from deepacc_lightning.train import quiet

register_resolvers()

KEYS = ("map50", "map50_max", "acc", "aer")


def measure(
    detector: Detector, coco: Mapping[str, Any], root: Path, name: str, seed: int
) -> dict[str, float]:
    """Returns the metrics of one variation, in percent."""
    boxes_of: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        if annotation["image_id"] in boxes_of:
            boxes_of[annotation["image_id"]].append(annotation)
    images, annotations, predictions = [], [], []
    for image in tqdm(coco["images"], desc=name, leave=False):
        own = boxes_of[image["id"]]
        given = np.array([a["bbox"] for a in own], dtype=np.float64).reshape(-1, 4)
        given[:, 2:] += given[:, :2]
        rng = np.random.default_rng([seed, image["id"]])
        gray = read_gray(root / "images" / image["file_name"])
        varied, moved = VARIATIONS[name](gray, given, rng)
        height, width = varied.shape
        images.append({**image, "height": height, "width": width})
        for annotation, (x0, y0, x1, y1) in zip(own, moved.tolist(), strict=True):
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({**annotation, "bbox": box, "area": box[2] * box[3]})
        predictions.append(detector.predict(as_gray(varied), image["id"]))
    metrics = compute_metrics(
        {**coco, "images": images, "annotations": annotations}, predictions
    ).summary()
    return {key: float(metrics[key]) for key in KEYS}


@alone(lambda cfg: cfg.out)
def run(cfg: DictConfig) -> dict[str, dict[str, dict[str, float]]]:
    """Measures every variation, with the view normalized and without.

    Returns:
        Metrics by ``normalized`` or ``as given``, then by variation.

    Raises:
        UserError: a bad checkpoint or data set, or an unknown variation.
    """
    quiet()
    check_data_root(cfg)
    names = list(cfg.variations or VARIATIONS)
    unknown = [name for name in names if name not in VARIATIONS]
    if unknown:
        raise ConfigError(f"variation {unknown[0]!r}: there is {', '.join(VARIATIONS)}")
    root = Path(cfg.data.root)
    coco = dict(read_split(root, cfg.split))
    if cfg.images and len(coco["images"]) > cfg.images:
        rows = np.linspace(0, len(coco["images"]) - 1, cfg.images).round().astype(int)
        coco["images"] = [coco["images"][row] for row in rows]
        kept = {image["id"] for image in coco["images"]}
        coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    options = {"device": cfg.device, "precision": cfg.precision, "tta": cfg.tta}
    detectors = {
        "normalized": load_detector(cfg.ckpt, normalize=True, **options),
        "as given": load_detector(cfg.ckpt, normalize=False, **options),
    }
    out = make_run_dir(cfg.out)
    found = {
        kind: {name: measure(detector, coco, root, name, cfg.seed) for name in names}
        for kind, detector in detectors.items()
    }
    text = table(found, names)
    print(f"{detectors['normalized'].name} on {len(coco['images'])} images of {cfg.split}, {root}")
    print(text)
    write_text(out / "robustness.md", text + "\n")
    write_json(
        out / "robustness.json",
        {**describe_run(checkpoint=cfg.ckpt, images=len(coco["images"])), "metrics": found},
    )
    return found


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]], names: list[str]) -> str:
    """Returns a Markdown table, with the difference to the first variation."""
    first = found["normalized"][names[0]]["map50"]
    rows = [
        [
            name,
            found["normalized"][name]["map50"],
            f"{found['normalized'][name]['map50'] - first:+.1f}",
            *(found["normalized"][name][key] for key in KEYS[1:]),
            found["as given"][name]["map50"],
        ]
        for name in names
    ]
    headers = ["Variation", "map50", "change", *KEYS[1:], "map50, not normalized"]
    text: str = tabulate(rows, headers, tablefmt="github", floatfmt=".1f")
    return text


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="robustness")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("robustness", main)
