"""Writes synthetic metaphases as a data set in the project's internal layout."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deepacc_d2.chromosomes import coco_categories
from deepacc_d2.data.synthetic.config import SyntheticConfig
from deepacc_d2.data.synthetic.workers import Job, run_jobs
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.partial import clear_folders, partial_folder, resolved, take_place
from deepacc_d2.sole_use import FOREVER, sole_use

SPLITS = ("train", "val", "test")
DEFAULT_SPLITS: dict[str, int] = {"train": 300, "val": 60, "test": 60}
# Each split has its own range of case numbers, so that val and test stay as they are when the
# training set grows.
_CASES_PER_SPLIT = 100_000


def _jobs(config: SyntheticConfig, splits: Mapping[str, int]) -> list[Job]:
    """All images of all splits, in order."""
    return [
        Job(
            split=split,
            case=SPLITS.index(split) * _CASES_PER_SPLIT + number // config.cells_per_case,
            cell=number % config.cells_per_case,
        )
        for split in SPLITS
        for number in range(splits[split])
    ]


def _check_splits(config: SyntheticConfig, splits: Mapping[str, int]) -> dict[str, int]:
    """Returns the number of images of every split, or raises ConfigError."""
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise ConfigError(f"unknown synthetic split {unknown[0]!r}: expected {', '.join(SPLITS)}")
    counts = {split: int(splits.get(split, 0)) for split in SPLITS}
    for split, count in counts.items():
        if count < 0:
            raise ConfigError(f"synthetic {split} images must not be negative, not {count}")
        if count > _CASES_PER_SPLIT * config.cells_per_case:
            raise ConfigError(f"too many synthetic {split} images ({count}): raise cells_per_case")
    if counts["train"] == 0:
        raise ConfigError("a synthetic data set needs at least one train image")
    return counts


def config_hash(config: SyntheticConfig, splits: Mapping[str, int]) -> str:
    """Returns what identifies a data set before it is made: SHA-256 of options and counts."""
    text = config.digest() + json.dumps({split: splits.get(split, 0) for split in SPLITS})
    return hashlib.sha256(text.encode()).hexdigest()


def _read_info(root: Path) -> dict[str, Any] | None:
    """Returns ROOT/dataset.json, or None if there is none that can be read."""
    try:
        info = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None


def _check_target(root: Path) -> None:
    """Refuses to replace anything but an empty folder or an older synthetic data set."""
    if not root.exists():
        return
    info = _read_info(root)
    if not root.is_dir() or (info is None and any(root.iterdir())):
        raise DataError(f"{root} exists and is no synthetic data set: remove it or choose another")
    if info is not None and info.get("format") != "synthetic":
        raise DataError(
            f"{root} holds a data set of format {info.get('format')!r}: choose another folder "
            "for synthetic metaphases"
        )


def _pixel_statistics(histogram: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the gray levels of a histogram (256,)."""
    levels = np.arange(256)
    mean = float((histogram * levels).sum() / histogram.sum())
    variance = float((histogram * (levels - mean) ** 2).sum() / histogram.sum())
    return mean, float(np.sqrt(variance))


def _write_all(
    folder: Path, config: SyntheticConfig, splits: dict[str, int], num_workers: int, progress: bool
) -> dict[str, Any]:
    """Fills an empty folder with images, annotations and dataset.json; returns the latter."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    coco: dict[str, dict[str, list[Any]]] = {
        split: {"images": [], "annotations": [], "categories": coco_categories()}
        for split in SPLITS
    }
    histogram = np.zeros(256, np.int64)
    fingerprint = hashlib.sha256()
    jobs = _jobs(config, splits)
    results = run_jobs(config, folder / "images", jobs, num_workers)
    bar = tqdm(total=len(jobs), desc="synthetic", unit="image", disable=not progress)
    with bar, contextlib.closing(results):
        for image_id, result in enumerate(results, start=1):
            record, target = result["record"], coco[result["split"]]
            annotations = record.pop("annotations")
            target["images"].append({"id": image_id, **record})
            for annotation in annotations:
                number = len(target["annotations"]) + 1
                target["annotations"].append({"id": number, "image_id": image_id, **annotation})
            fingerprint.update(f"{record['file_name']} {result['sha256']}\n".encode())
            if result["split"] == "train":
                histogram += np.array(result["histogram"])
            bar.update()
    for split in SPLITS:
        text = json.dumps(coco[split], separators=(",", ":"))
        (folder / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")
        fingerprint.update(text.encode())
    mean, std = _pixel_statistics(histogram)
    info = {
        "name": "synthetic",
        "format": "synthetic",
        "source": "drawn by deepacc_d2.data.synthetic from the human ideogram (GRCh38, 550 bands)",
        "licence": "Apache-2.0",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "split": {"method": "case-disjoint", "seed": config.seed},
        "pixel_mean": [round(mean, 4)],
        "pixel_std": [round(std, 4)],
        "counts": splits,
        "fingerprint": fingerprint.hexdigest(),
        "config": dataclasses.asdict(config),
        "config_hash": config_hash(config, splits),
    }
    text = json.dumps(info, indent=2) + "\n"
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    read_back: dict[str, Any] = json.loads(text)  # exactly what a reader of the file gets
    return read_back


def _publish(folder: Path, root: Path, info: dict[str, Any]) -> None:
    """Moves the finished folder to its place, over an older synthetic data set if there is one."""
    if root.exists():
        present = _read_info(root)
        if present is not None and present.get("config_hash") == info["config_hash"]:
            return  # another process was faster; its files are the same
    take_place(folder, root)


def write_dataset(
    root: str | Path,
    config: SyntheticConfig | None = None,
    splits: Mapping[str, int] | None = None,
    *,
    num_workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Draws a data set of synthetic metaphases in the internal layout.

    >>> from tempfile import TemporaryDirectory
    >>> config = SyntheticConfig(size=(256, 256), cells_per_case=1)
    >>> with TemporaryDirectory() as folder:
    ...     info = write_dataset(f"{folder}/a", config, {"train": 1}, num_workers=0, progress=False)
    >>> info["counts"]
    {'train': 1, 'val': 0, 'test': 0}

    All is written to a temporary sibling of ``root`` that takes its place at the end, so that an
    interrupted run leaves nothing behind. Images and annotations depend on ``config`` and
    ``splits`` alone, not on the number of workers.

    Args:
        root: folder to make; may be an older synthetic data set, which is then replaced.
        config: options of the generator.
        splits: number of images in ``train``, ``val`` and ``test``; default 300, 60 and 60. Splits
            share batches but no case.
        num_workers: processes; default one for each available core, 0 or 1 for none.
        progress: show a progress bar.

    Returns:
        The content of ROOT/dataset.json.

    Raises:
        ConfigError: a count is negative, or a split is unknown.
        DataError: ``root`` is something else, or cannot be written.
        OccupiedError: another job is drawing there.
    """
    root = Path(root).absolute()
    resolved(root)
    config = config or SyntheticConfig()
    counts = _check_splits(config, DEFAULT_SPLITS if splits is None else splits)
    _check_target(root)
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    folder = partial_folder(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with sole_use(root):
            clear_folders(root)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            info = _write_all(folder, config, counts, num_workers or 1, progress)
            _publish(folder, root, info)
    except OSError as error:
        raise DataError(f"cannot write the synthetic data set {root}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return info


def ensure_dataset(
    root: str | Path,
    config: SyntheticConfig | None = None,
    splits: Mapping[str, int] | None = None,
    *,
    num_workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Returns ROOT/dataset.json at once if it was made with these options, else makes it.

    Arguments and errors are those of :func:`write_dataset`.
    """
    config = config or SyntheticConfig()
    counts = _check_splits(config, DEFAULT_SPLITS if splits is None else splits)
    wanted = config_hash(config, counts)

    def present() -> dict[str, Any] | None:
        info = _read_info(Path(root))
        return info if info is not None and info.get("config_hash") == wanted else None

    found = present()
    if found is not None:
        return found
    # Of trainings that begin together one draws, and the others wait for it.
    with sole_use(root, wait=FOREVER):
        return present() or write_dataset(
            root, config, counts, num_workers=num_workers, progress=progress
        )
