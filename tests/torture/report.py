"""The campaign's report, as Markdown and as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from part import Result
from tabulate import tabulate

from deepacc_lightning.core.run_info import cpu_name, git_revision

MARKS = ("<!-- report -->", "<!-- /report -->")
MEANING = {
    "images": "damaged images through the reader, then all through `predict` and `data`",
    "annotations": "damaged annotation sets of every format through `data`",
    "checkpoints": "damaged and hostile checkpoints and exported models through `predict`",
    "kill_train": "SIGKILL in `train`, resumed",
    "kill_predict": "SIGKILL in `predict`, resumed",
    "kill_data": "SIGKILL in `data`, repeated",
    "kill_synthetic": "SIGKILL in `synthetic`, repeated",
    "kill_sweep": "SIGKILL in `sweep`, resumed",
    "disk": "programs on a full disk, then with room",
    "paths": "odd and read-only paths of every program",
    "soak": "images one after another through one `predict`",
}


def machine() -> dict[str, Any]:
    """Returns what the campaign ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "load": round(os.getloadavg()[2], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write(
    out: Path, names: list[str], options: argparse.Namespace, seconds: float
) -> tuple[Path, int]:
    """Writes report.md and report.json of the parts that are there.

    Returns:
        The path of the former, and the number of failures.
    """
    found = [Result.load(out / f"{name}.json") for name in names if (out / f"{name}.json").exists()]
    failures = sum(len(result.failures) for result in found)
    content = {
        "date": datetime.date.today().isoformat(),
        "seed": options.seed,
        "minutes": options.minutes,
        "seconds": round(seconds),
        "machine": machine(),
        "revision": git_revision(),
        "parts": [dataclasses.asdict(result) for result in found],
    }
    (out / "report.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    path = out / "report.md"
    path.write_text(markdown(found, content), "utf-8")
    return path, failures


def markdown(found: list[Result], content: dict[str, Any]) -> str:
    """Returns the report as Markdown."""
    has = content["machine"]
    rows = [
        [
            result.name,
            MEANING[result.name],
            f"{result.done} of {result.goal}",
            len(result.failures),
            f"{result.seconds:.0f} s",
            f"{result.processor:.0f} s",
        ]
        for result in found
    ]
    table = tabulate(
        rows,
        ["part", "what", "tried", "failures", "time", "of processors"],
        "github",
        disable_numparse=True,
    )
    lines = [
        f"Run on {content['date']} with seed {content['seed']} by `make torture "
        f"SEED={content['seed']} MINUTES={content['minutes']:g}`: {has['cpu']}, {has['cores']} "
        f"cores, {has['memory_gb']} GB, {has['system']}, Python {has['python']}, torch "
        f"{has['torch']}; average load {has['load']} at the end.",
        table,
    ]
    for result in found:
        facts = [f"- {name}: {value}" for name, value in result.facts.items()]
        notes = [f"- Not tried: {note}" for note in result.notes]
        bad = [f"- **Failed**: {f.what}: `{_short(f.detail)}`" for f in result.failures]
        if facts or notes or bad:
            lines.append(f"### {result.name}")
            lines.append("\n".join([*facts, *notes, *bad]))
    return "\n\n".join(lines) + "\n"


def put_into(path: Path, text: str) -> None:
    """Puts a report between the marks of a Markdown file."""
    before, rest = path.read_text("utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    path.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}", "utf-8")


def _short(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")[-300:]
