"""``make peers``: other detectors trained on the same images, for as long, scored by one code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate

from deepacc_d2.data.dataset import read_split
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.evaluation.ablation.report import update_section
from deepacc_d2.files import write_json, write_text
from deepacc_d2.secret import redacted
from deepacc_lightning.core.cli import (
    alone,
    check_accelerator,
    check_data_root,
    run_entry_point,
    run_guarded,
    uses_gpu,
)
from deepacc_lightning.core.config import (
    all_presets,
    compose_config,
    config_dir,
    register_resolvers,
)
from deepacc_lightning.core.run_info import describe_run, device_name, make_run_dir
from deepacc_lightning.jobs.peer_job import write_request
from deepacc_lightning.jobs.peer_networks import Request, peer_of
from deepacc_lightning.jobs.peer_views import write_views
from deepacc_lightning.train import quiet
from deepacc_lightning.training.datamodule import data_sets_of

register_resolvers()

HEAD = (
    *("Detector", "weights, million", "images seen", "minutes", "map50", "coco_ap", "aer"),
    *("from score", "s an image", "exported, times as fast", "GiB, training", "GiB, detection"),
)


@alone(lambda cfg: cfg.out)
def run(cfg: DictConfig) -> dict[str, Any]:
    """Trains each peer that is not done yet, measures it, and writes the table.

    Returns:
        The facts of each peer.

    Raises:
        UserError: a bad data set, an unknown peer, a library that is missing, or a failed training.
    """
    quiet()
    check_data_root(cfg, several=True)
    check_accelerator(cfg.accelerator, "accelerator")
    if cfg.minutes <= 0 or cfg.threads < 1 or cfg.batch_size < 1:
        raise ConfigError("minutes, threads, batch_size: give more than 0 of each")
    presets = all_presets()
    for name in cfg.peers:
        peer_of(name, presets).check()
    out = make_run_dir(Path(cfg.out).resolve())
    views = out / "views"
    data = data_sets_of(cfg)
    settings = {
        "data": data.info().fingerprint,
        **{key: cfg[key] for key in ("minutes", "threads", "batch_size", "seed")},
        **{key: cfg[key] for key in ("max_train_images", "max_test_images")},
        **{key: cfg[key] for key in ("chromosome_size", "image_size")},
    }
    scale = tuple(f"scale.{key}={cfg[key]}" for key in ("chromosome_size", "image_size"))
    check_same(out / "settings.json", settings)
    if not views.is_dir():
        ours = compose_config("train", ["scale=lab", *scale])
        nodes: Any = OmegaConf.to_container(ours.scale.test_augmentations, resolve=True)
        limits = {"train": cfg.max_train_images, "test": cfg.max_test_images}
        write_views(views, data, [instantiate(node) for node in nodes], limits)
    torch.set_num_threads(int(cfg.threads))  # as the table says
    facts = {}
    for name in cfg.peers:
        request = Request(
            views=views,
            folder=make_run_dir(out / name),
            seconds=60 * float(cfg.minutes),
            batch_size=int(cfg.batch_size),
            image_size=int(cfg.image_size),
            scale=scale,
            threads=int(cfg.threads),
            seed=int(cfg.seed),
            gpu=uses_gpu(cfg.accelerator),
        )
        facts[name] = measured(name, presets, request, int(cfg.timed_images))
    text = table(facts)
    print(text)
    text = f"{about(data.info().name, settings, request)}\n\n{text}\n"
    write_text(out / "peers.md", text)
    write_json(out / "peers.json", describe_run(settings=settings, peers=facts))
    if cfg.results:
        update_section(Path(cfg.results), "peers", text)
    return facts


def check_same(path: Path, settings: dict[str, Any]) -> None:
    """Remembers what the peers of a folder were trained with, and refuses others.

    Raises:
        ConfigError: names the first setting that differs.
    """
    if not path.is_file():
        write_json(path, settings)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for key, value in settings.items():
        if before.get(key) != value:
            raise ConfigError(
                f"{path.parent} holds peers of {key}={before.get(key)}, not {value}: choose "
                "another OUT, or remove it"
            )


def measured(name: str, presets: list[str], request: Request, timed: int) -> dict[str, Any]:
    """Trains a peer and measures it, each in its own process, unless that is done.

    Raises:
        UserError: one of them failed.
    """
    path = request.folder / "request.json"
    write_request(path, name, presets, request, timed)
    facts = {}
    for action in ("train", "detect"):
        written = path.with_name(f"{action}.json")
        if not written.is_file():
            log = path.with_name(f"{action}.log")
            print(f"{name}: {action}, see {log}", flush=True)
            command = [sys.executable, "-m", "deepacc_lightning.jobs.peer_job", action, str(path)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(request.threads)}
            with log.open("wb") as stream:
                done = subprocess.run(
                    command, env=environment, stdout=stream, stderr=stream, check=False
                )
            if done.returncode:
                last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise UserError(
                    f"peer {name}: {action} failed, see {log}: {last[-1] if last else ''}"
                )
        facts[action] = json.loads(written.read_text(encoding="utf-8"))
    return facts


def about(name: str, settings: dict[str, Any], request: Request) -> str:
    """Says in Markdown what the peers of a table were trained on, and how long."""
    train, test = (len(read_split(request.views, s)["images"]) for s in ("train", "test"))
    known, device = settings["data"][:16], device_name(torch.device(request.device))
    size, longest = settings["chromosome_size"], settings["image_size"]
    minutes, batch, seed = (settings[key] for key in ("minutes", "batch_size", "seed"))
    lines = {
        "Data": f"{name}, fingerprint {known}, {train} training, {test} test images",
        "Views": f"chromosomes of {size} px, longest side at most {longest} px",
        "Trained": f"{minutes} minutes from random weights, {batch} images a step, seed {seed}",
        "Device": device,
        "Metrics": "in percent; `aer` from the score that is best on validation",
    }
    command = redacted(os.environ.get("DEEPACC_COMMAND", "make peers"))
    facts = "\n".join(f"- {key}: {value}" for key, value in lines.items())
    return f"## Other detectors: {name}\n\n{facts}\n\n```sh\n{command}\n```"


def table(facts: dict[str, Any]) -> str:
    """Returns the peers as a Markdown table, metrics in percent."""
    rows = []
    for name, each in facts.items():
        trained, found = each["train"], each["detect"]
        metrics = found["metrics"]
        rows.append(
            [
                f"`{name}`",
                found["weights"] / 1e6,
                str(trained["images_seen"]),
                trained["seconds"] / 60,
                *(metrics[key] for key in ("map50", "coco_ap", "aer")),
                found["threshold"],
                found["seconds_an_image"],
                found.get("exported_over_eager"),
                trained["peak_gib"],
                found["peak_gib"],
            ]
        )
    text: str = tabulate(rows, HEAD, tablefmt="pipe", floatfmt=".2f", missingval="-")
    return text


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="peers")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("peers", main)
