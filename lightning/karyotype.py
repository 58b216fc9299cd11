"""``make karyotype``: settings fitted on validation images, karyotypes judged on test images."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig
from tqdm import tqdm

from deepacc_d2.data.dataset import read_split
from deepacc_d2.data.made.composed import find_cells
from deepacc_d2.detection.detector import DEFAULT_CHECKPOINT, Detector, model_hash
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.files import whole_file, write_json, write_text
from deepacc_d2.images.read import read_image
from deepacc_d2.karyotype.calibration import plot_reliability
from deepacc_d2.karyotype.fit import KnownCell, fit_settings
from deepacc_d2.karyotype.made import score_cells, score_made
from deepacc_d2.karyotype.scoring import Evaluation, evaluate_cells, settings_record
from deepacc_d2.karyotype.table import evaluation_report
from deepacc_d2.prediction.predictor import load_predictor
from deepacc_lightning.core.cli import alone, check_data_root, run_entry_point, run_guarded
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.run_info import describe_run
from deepacc_lightning.jobs.made_cells import Raw, composed_cells, made_cells, source_cells
from deepacc_lightning.train import quiet

register_resolvers()


@alone(lambda cfg: cfg.out)
def run(cfg: DictConfig) -> Evaluation:
    """Fits and evaluates as the config says.

    Returns:
        The evaluation of the test split with the fitted settings.

    Raises:
        UserError: a bad checkpoint or data set, a split without images, or nothing was found.
    """
    quiet()
    check_data_root(cfg)
    root, out = Path(cfg.data.root), Path(cfg.out)
    splits = {
        split: _some(read_split(root, split), cfg.images) for split in (cfg.fit_split, cfg.split)
    }
    for split, coco in splits.items():
        if not coco["images"]:
            raise ConfigError(f"split {split} of {root} has no image: name another one")
    for name in ("gains", "losses"):
        if cfg[name] < 0:
            raise ConfigError(f"{name}={cfg[name]}: give the number of cells to make, 0 for none")
    crops = find_cells(cfg.crops) if cfg.crops else []
    predictor = load_predictor(
        cfg.ckpt,
        device=cfg.device,
        precision=cfg.precision,
        normalize=bool(cfg.normalize),
        tta=cfg.tta,
    )
    detector = predictor.detector
    out.mkdir(parents=True, exist_ok=True)
    key = _key(cfg, detector)
    raw = read_raw(out / "raw.npz", key)
    try:
        for split, coco in splits.items():
            detect(detector, coco, root, raw, split)
        made = {
            split: made_cells(
                detector,
                coco,
                root,
                raw,
                gains=cfg.gains,
                losses=cfg.losses,
                seed=cfg.made_seed,
                split=split,
            )
            for split, coco in splits.items()
        }
        composed = composed_cells(detector, crops, raw)
    finally:
        write_raw(out / "raw.npz", key, raw)

    known = {split: known_cells(coco, raw) for split, coco in splits.items()}
    settings, strengths = fit_settings(
        known[cfg.fit_split],
        list(cfg.strengths),
        predictor.karyotype,
        made[cfg.fit_split][0],
        list(cfg.loss_factors),
    )
    coco = splits[cfg.split]
    result, fitted = (
        evaluate_cells(known[split], own, [image["id"] for image in own["images"]], settings)
        for split, own in ((cfg.split, coco), (cfg.fit_split, splits[cfg.fit_split]))
    )
    record = settings_record(settings, strengths)
    record["selection"] = detector.settings()["selection"]
    write_json(out / "calibration.json", record)
    title = f"{predictor.name}: {len(coco['images'])} images of {cfg.split}, {root.name}"
    changed, not_made = made[cfg.split]
    made_scores = score_made(changed, settings, not_made=not_made) if changed else None
    real_scores = score_cells(known[cfg.split], settings)
    composed_scores = score_cells(composed, settings) if composed else None
    report = evaluation_report(
        result,
        settings,
        strengths,
        title=title,
        fitted=fitted,
        made=made_scores,
        real=real_scores,
        composed=composed_scores,
    )
    print(report)
    write_text(out / "report.md", report + "\n")
    facts = describe_run(
        checkpoint=str(cfg.ckpt or DEFAULT_CHECKPOINT),
        data=str(root),
        fit_split=cfg.fit_split,
        split=cfg.split,
        images={split: len(found["images"]) for split, found in splits.items()},
    )
    scores = (("made", made_scores), ("real", real_scores), ("composed", composed_scores))
    scored = {name: own.to_dict() for name, own in scores if own is not None}
    content = {**facts, **record, **result.to_dict(), "as_fitted": fitted.to_dict(), **scored}
    write_json(out / "karyotype.json", content)
    plot_reliability(result.before, result.after).savefig(out / "reliability.png", dpi=110)
    return result


def _some(coco: Mapping[str, Any], number: int | None) -> dict[str, Any]:
    """Returns a split with so many of its images, evenly spaced."""
    images = list(coco["images"])
    if number and len(images) > number:
        rows = np.linspace(0, len(images) - 1, number).round().astype(int)
        images = [images[row] for row in rows]
    kept = {image["id"] for image in images}
    annotations = [a for a in coco["annotations"] if a["image_id"] in kept]
    return {**coco, "images": images, "annotations": annotations}


def _key(cfg: DictConfig, detector: Detector) -> str:
    """Returns what detections depend on besides the image."""
    digest = model_hash(Path(cfg.ckpt or DEFAULT_CHECKPOINT))
    return json.dumps([digest, cfg.precision, detector.settings()], sort_keys=True, default=str)


def image_key(image: Mapping[str, Any]) -> str:
    """Returns the name of an image's detections: with its content's hash where there is one."""
    return f"{image['file_name']} {image.get('sha256') or ''}".strip()


def detect(detector: Detector, coco: Mapping[str, Any], root: Path, raw: Raw, split: str) -> None:
    """Adds the detections of the images that ``raw`` lacks.

    Raises:
        DataError: an image cannot be read.
    """
    missing = [image for image in coco["images"] if image_key(image) not in raw]
    for image in tqdm(missing, desc=f"detecting, {split}", disable=not missing):
        gray = read_image(root / "images" / image["file_name"]).gray
        found = detector.detect(gray)
        raw[image_key(image)] = found.boxes, found.probabilities


def read_raw(path: Path, key: str) -> Raw:
    """Returns kept detections; none if there are none of this model and these settings."""
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) != key:
                return {}
            ends = np.cumsum(kept["numbers"])
            boxes, probabilities = (
                np.split(kept[name], ends[:-1]) for name in ("boxes", "probabilities")
            )
            names = [str(name) for name in kept["names"]]
        return dict(zip(names, zip(boxes, probabilities, strict=True), strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: remove it, it is made again") from error


def write_raw(path: Path, key: str, raw: Raw) -> None:
    """Keeps detections, by way of a temporary file."""
    if not raw:
        return
    with whole_file(path) as temporary:
        np.savez_compressed(
            temporary,
            key=np.array(key),
            names=np.array(list(raw)),
            numbers=np.array([len(boxes) for boxes, _ in raw.values()]),
            boxes=np.concatenate([boxes for boxes, _ in raw.values()]),
            probabilities=np.concatenate([p for _, p in raw.values()]),
        )


def known_cells(coco: Mapping[str, Any], raw: Raw) -> list[KnownCell]:
    """Returns detections and truth of each image of a split, in its order."""
    cells = []
    for image, source in zip(coco["images"], source_cells(coco), strict=True):
        boxes, probabilities = raw[image_key(image)]
        cells.append(KnownCell(boxes, probabilities, source.boxes, source.classes, source.name))
    return cells


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="karyotype")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("karyotype", main)
