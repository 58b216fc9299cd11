"""Runs the benchmarks next to this file and saves their table.

``make bench``, or ``python tests/benchmarks/run.py [--out FILE.md] [NAME ...]``. A name is that of
a module without ``bench_``; none runs all. A missed goal is marked in the table and does not
change the exit status: a busy machine is no defect.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

import torch
from measurement import Measurement
from tabulate import tabulate

HERE = Path(__file__).parent
NAMES = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def _table(results: list[Measurement]) -> str:
    rows = [
        [
            r.name,
            f"{r.value:.3g}" + ("" if r.unit == "x" else f" {r.unit}"),
            r.goal,
            {True: "yes", False: "**MISSED**", None: "-"}[r.met],
            r.how,
        ]
        for r in results
    ]
    headers = ["benchmark", "measured", "goal", "met", "how"]
    return str(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


def _machine() -> str:
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = os.getloadavg()[0]
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores "
        f"(load {load:.1f} at the end), {accelerator}, Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


def _save(results: list[Measurement], out: Path) -> None:
    """Writes the Markdown table and a JSON file with all details next to it."""
    date = datetime.date.today().isoformat()
    text = (
        f"# Benchmarks\n\nMeasured {date} by `make bench` on {_machine()}.\n\n{_table(results)}\n"
    )
    entries = [{**dataclasses.asdict(r), "met": r.met} for r in results]
    content = {"date": date, "machine": _machine(), "benchmarks": entries}
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, data in (
        (out, text),
        (out.with_suffix(".json"), json.dumps(content, indent=2) + "\n"),
    ):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(data, encoding="utf-8")
        temporary.replace(path)


def main() -> int:
    """Runs what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"among {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks.md"))
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}: choose among {', '.join(NAMES)}")
    results = []
    for name in options.names or NAMES:
        began = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        results += importlib.import_module(f"bench_{name}").run()
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    _save(results, options.out)
    print(f"\n{_table(results)}\n\nsaved in {options.out} and {options.out.with_suffix('.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
