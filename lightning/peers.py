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
from deepacc_lightning.jobs.peer_speed import EAGER
from deepacc_lightning.jobs.peer_views import write_views
from deepacc_lightning.train import quiet
from deepacc_lightning.training.datamodule import data_sets_of

register_resolvers()

HEAD = (
    *("Detector", "weights, million", "images seen", "minutes", "map50", "coco_ap", "aer"),
    *("from score", "GiB, training", "GiB, detection"),
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
    facts, paths = {}, []
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
        paths.append(request.folder / "request.json")
        write_request(paths[-1], name, presets, request, int(cfg.timed_images))
        facts[name] = {
            action: in_process(
                action, paths[-1:], request.folder / f"{action}.json", name, request.threads
            )
            for action in ("train", "detect")
        }
    # Of these peers together, so always anew.
    (out / "race.json").unlink(missing_ok=True)
    speed = in_process("race", paths, out / "race.json", "speed", request.threads)
    text = f"{table(facts)}\n\n{speed_table(speed)}"
    print(text)
    text = f"{about(data.info().name, settings, request)}\n\n{text}\n"
    write_text(out / "peers.md", text)
    write_json(out / "peers.json", describe_run(settings=settings, peers=facts, speed=speed))
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


def in_process(
    action: str, requests: list[Path], written: Path, name: str, threads: int
) -> dict[str, Any]:
    """Returns what a process of peers writes, which is started unless it has written it before.

    Raises:
        UserError: it failed.
    """
    if not written.is_file():
        log = written.with_suffix(".log")
        print(f"{name}: {action}, see {log}", flush=True)
        command = [sys.executable, "-m", "deepacc_lightning.jobs.peer_job", action]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with log.open("wb") as stream:
            done = subprocess.run(
                [*command, *map(str, requests)],
                env=environment,
                stdout=stream,
                stderr=stream,
                check=False,
            )
        if done.returncode:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UserError(f"peer {name}: {action} failed, see {log}: {last[-1] if last else ''}")
    found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return found


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
                trained["peak_gib"],
                found["peak_gib"],
            ]
        )
    text: str = tabulate(rows, HEAD, tablefmt="pipe", floatfmt=".2f", missingval="-")
    return text


def speed_table(seconds: dict[str, dict[str, float]]) -> str:
    """Returns how many times as fast as the first detector in PyTorch each one is, as Markdown."""
    ways = list(dict.fromkeys(how for each in seconds.values() for how in each))
    first = next(iter(seconds))
    reference = seconds[first][EAGER]
    rows = [
        [f"`{name}`", *(reference / each[how] if how in each else None for how in ways)]
        for name, each in seconds.items()
    ]
    head = (f"Speed, times that of `{first}` in PyTorch", *ways)
    text: str = tabulate(rows, head, tablefmt="pipe", floatfmt=".2f", missingval="-")
    return f"{text}\n\n`{first}` in PyTorch took {reference:.3f} s an image."


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="peers")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("peers", main)
