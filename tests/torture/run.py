"""Runs the torture campaign and writes its report.

``make torture``, or ``python tests/torture/run.py [--seed 0] [--minutes 30] [--parts "images soak"]
[--out DIR]``. A part that tried all it was to try in OUT with the same seed, and passed, is not
run again. Exits 1 where something failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WEIGHTS = {
    "images": 12,
    "annotations": 10,
    "checkpoints": 6,
    "kill_train": 12,
    "kill_predict": 8,
    "kill_data": 4,
    "kill_synthetic": 5,
    "kill_sweep": 14,
    "disk": 8,
    "paths": 8,
    "soak": 13,
}
"""The parts, each with its share of the time; a part that ends early leaves the rest to others."""
PATIENCE = 3.0
"""Times its share of processor time, and ten minutes, after which a part is ended for hanging."""
STALLED = 900.0
"""Seconds without processor time after which it is ended as well."""
JOBS = 2


def main() -> int:
    """Runs what was asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of all that is random")
    parser.add_argument("--minutes", type=float, default=30, help="it takes on two idle cores")
    parser.add_argument("--parts", default="", help=f"of {' '.join(WEIGHTS)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/torture"), help="folder")
    parser.add_argument("--results", type=Path, help="Markdown file to put the report into")
    parser.add_argument("--goal", type=int, help="things to try in each part, not as many as usual")
    parser.add_argument("--part", choices=WEIGHTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    parts = options.parts.replace(",", " ").split() or list(WEIGHTS)
    unknown = [name for name in parts if name not in WEIGHTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}: choose of {' '.join(WEIGHTS)}")
    options.out = options.out.absolute()
    sys.path.insert(0, str(ROOT))
    if options.part:
        return run_part(options)
    return run_campaign(parts, options)


def run_campaign(parts: list[str], options: argparse.Namespace) -> int:
    """Runs parts, each in a process of its own: one that crashes takes no other with it."""
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    total = 60 * options.minutes * JOBS
    seconds = {name: total * WEIGHTS[name] / sum(WEIGHTS.values()) for name in WEIGHTS}
    # The longest first, so that the last ones end together.
    order = sorted(parts, key=lambda name: -WEIGHTS[name])
    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(lambda name: start_part(name, seconds[name], options), order))
    from report import put_into, write  # late: it needs half a gigabyte

    path, failures = write(options.out, list(WEIGHTS), options, time.monotonic() - began)
    if options.results:
        put_into(options.results, path.read_text("utf-8"))
    print(f"report: {path}")
    return 1 if failures else 0


def start_part(name: str, seconds: float, options: argparse.Namespace) -> None:
    """Runs a part in a process, and notes where that crashes or hangs."""
    from part import Result

    path = options.out / f"{name}.json"
    if path.is_file():
        found = Result.load(path)
        all_tried = found.complete and found.done >= found.goal
        if all_tried and found.seed == options.seed and not found.failures:
            print(f"{name}: complete already", flush=True)
            return
    path.unlink(missing_ok=True)
    print(f"{name} ...", flush=True)
    own = ["--part", name, "--seed", str(options.seed), "--minutes", str(seconds / 60)]
    goal = ["--goal", str(options.goal)] if options.goal else []
    command = [sys.executable, str(HERE / "run.py"), *own, *goal, "--out", str(options.out)]
    with (options.out / f"{name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*namespace(), *command], stdout=log, stderr=log, env=environment(options.out)
        )
        status = wait(process, PATIENCE * seconds + 600)
    result = Result.load(path) if path.is_file() else Result(name, options.seed, 0)
    if status != 0 or not result.complete:
        from part import Failure

        tail = (options.out / f"{name}.log").read_text("utf-8", "replace")[-1500:]
        current = options.out / f"work-{name}" / "current.txt"
        where = f" at {current.read_text()}" if current.is_file() else ""
        result.failures.append(Failure(f"the part itself ended with {status}{where}", tail))
        result.save(path)
    print(
        f"{name}: {result.done} of {result.goal}, {len(result.failures)} failures, "
        f"{result.seconds:.0f} s",
        flush=True,
    )


def wait(process: subprocess.Popen[bytes], most: float) -> int | str:
    """Waits for a part; ends one that takes too much processor time, or none for long.

    Args:
        process: of the part.
        most: seconds of processor time.

    Returns:
        Its exit status, or ``hung``.
    """
    from programs import STILL, tree_time

    used, since = 0.0, time.monotonic()
    while process.poll() is None:
        now = tree_time(process.pid)
        if now > used + STILL:
            used, since = now, time.monotonic()
        if now > most or time.monotonic() - since > STALLED:
            process.kill()
            process.wait()
            return "hung"
        time.sleep(1.0)
    return process.returncode


def namespace() -> list[str]:
    """Returns what gives a part mounts of its own; nothing where that is forbidden."""
    prefix = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return prefix


def environment(out: Path) -> dict[str, str]:
    """Returns what parts are run with: one thread each, nothing sent anywhere."""
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    own |= {"WANDB_MODE": "disabled", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
    # The programs of this checkout, wherever others are installed.
    own["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")))
    own |= {"HYPOTHESIS_STORAGE_DIRECTORY": str(out / "hypothesis")}
    return {**os.environ, **own}


def run_part(options: argparse.Namespace) -> int:
    """Runs a part in this process."""
    import torch
    from part import Part

    torch.set_num_threads(1)
    name = options.part
    module = importlib.import_module(f"part_{name.partition('_')[0]}")
    work = options.out / f"work-{name}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    part = Part(
        name,
        options.goal or module.GOAL,
        seed=options.seed,
        seconds=60 * options.minutes,
        work=work,
        path=options.out / f"{name}.json",
    )
    module.run(part)
    result = part.finish()
    if not result.failures:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
