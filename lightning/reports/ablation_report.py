"""The report of an ablation: tables and figures in its folder, and in a document."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.evaluation.ablation.report import (
    AblationResult,
    confusions_markdown,
    format_metrics,
    metrics_markdown,
    update_section,
    write_ablation_report,
)
from deepacc_d2.evaluation.explain.center_quality import CenterQuality
from deepacc_d2.secret import redacted
from deepacc_lightning.jobs.job import Job, read_facts
from deepacc_lightning.reports.ablation_centers import centers_markdown, measure_centers
from deepacc_lightning.train import build_datamodule


def report(cfg: DictConfig, jobs: list[Job], trunk: Path | None) -> AblationResult:
    """Writes and prints the table of all finished jobs."""
    runs: dict[str, list[Path]] = {}
    for job in jobs:
        if job.done:
            runs.setdefault(job.preset, []).append(job.out)
    datamodule = build_datamodule(cfg)
    info = datamodule.info()
    name = cfg.ablation.name
    title = f"Ablation, {name.replace('_', ' ')}: {info.name}"
    out = Path(cfg.out).resolve()
    one = read_facts(next(job for job in jobs if job.done))
    images = {stage: len(datamodule.coco(stage)["images"]) for stage in ("train", "val", "test")}
    facts = {
        "Data": f"{info.name}, fingerprint {info.fingerprint[:16]}, {images['train']} training, "
        f"{images['val']} validation, {images['test']} test images",
        "Scale": f"{cfg.scale.name}, longest side {cfg.scale.image_size} px",
        "Trained": trained(cfg, one),
        "Chosen": "the checkpoint with the best map50 on validation",
        "Device": one.get("device"),
        "Revision": (one.get("git") or {}).get("revision"),
    }
    if trunk is not None:
        facts["Trunk"] = trunk_facts(trunk)
    result = write_ablation_report(
        out / "report",
        runs,
        datamodule.coco("test"),
        title=title,
        facts={k: v for k, v in facts.items() if v},
        commands=[redacted(os.environ.get("DEEPACC_COMMAND", "make ablation"))],
        reference=cfg.ablation.reference,
        resamples=cfg.ablation.resamples,
        seed=cfg.seed,
    )
    print(f"\n{format_metrics(result)}\nreport           {out / 'report'}", flush=True)
    centers = centers_of(cfg, jobs, out / "report")
    if cfg.ablation.results:
        publish(result, out / "report", Path(cfg.ablation.results), name, centers)
    return result


def centers_of(cfg: DictConfig, jobs: list[Job], folder: Path) -> dict[str, CenterQuality]:
    """Judges the local centers of the first seed's runs and writes ``centers.md``."""
    if not cfg.ablation.center_images:
        return {}
    best: dict[str, Path] = {}
    for job in jobs:
        path = job.out / "checkpoints" / "best.ckpt"
        if job.done and path.is_file():
            best.setdefault(job.preset, path)
    qualities = measure_centers(cfg, best, cfg.ablation.center_images)
    if qualities:
        path = folder / "centers.md"
        path.write_text(centers_markdown(qualities), encoding="utf-8")
        print(f"local centers    {path}", flush=True)
    return qualities


def trained(cfg: DictConfig, facts: dict[str, Any]) -> str:
    """Says in a line what one training was."""
    node = cfg.heads if cfg.ablation.protocol == "heads" else cfg.scale
    optimizer = (node if "optim" in node else cfg).optim.optimizer
    name = optimizer._target_.rpartition(".")[2]
    return (
        f"{facts.get('steps')} steps of {node.batch_size} images ({node.max_epochs} epochs), "
        f"{name}, lr {optimizer.lr:g}, {cfg.trainer.precision}"
    )


def trunk_facts(trunk: Path) -> str:
    """Says in a line what the trunk is."""
    config = read_checkpoint(trunk)["deepacc_config"]
    return (
        f"frozen backbone, FPN and RPN of a {config['preset']} trained end to end for "
        f"{config['scale']['max_epochs']} epochs, seed {config['seed']}; heads start at random"
    )


def publish(
    result: AblationResult,
    folder: Path,
    path: Path,
    name: str,
    centers: dict[str, CenterQuality],
) -> None:
    """Puts the tables into a Markdown file, and the figures into ``images`` next to it.

    Args:
        result: the comparison.
        folder: where its report was written.
        path: the Markdown file; its section of this name is replaced.
        name: of the section and the figures.
        centers: how often local centers are right, by preset.
    """
    images = path.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    links = {}
    for figure in ("metrics", "confusions"):
        links[figure] = f"images/ablation_{name}_{figure}.png"
        shutil.copyfile(folder / f"{figure}.png", path.parent / links[figure])
    text = metrics_markdown(result, heading="##", figure=links["metrics"])
    text += "\n" + confusions_markdown(result, heading="###", figure=links["confusions"])
    if centers:
        text += "\n" + centers_markdown(centers, heading="###")
    update_section(path, f"ablation_{name}", text)
    print(f"results          {path}", flush=True)
