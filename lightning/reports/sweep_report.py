"""What a sweep found: its table, the files of it, and the best job as a command."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from deepacc_d2.errors import UserError
from deepacc_d2.evaluation.types import SUMMARY_KEYS
from deepacc_d2.files import csv_text, write_json, write_text
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.sweep_plan import Sweep, parse, short_names, shown
from deepacc_lightning.jobs.train_job import OBJECTIVE
from deepacc_lightning.training.callbacks import format_duration

VARIABLES = {"experiment": "EXP", "scale": "SCALE", "seed": "SEED"}
NOT_FOR_CHOOSING = "test figures are shown for information; nothing was chosen by them"
SHOWN_VAL = ("map50", "aer", "acc")
SHOWN_TEST = ("map50", "aer")


def report(sweep: Sweep, jobs: Sequence[Job]) -> list[Path]:
    """Prints and writes what the jobs gave: ``results.csv``, ``results.json``, ``comparison/``.

    Args:
        sweep: the sweep.
        jobs: all of its jobs, whatever became of them.

    Returns:
        The written files.
    """
    rows = table_rows(jobs)
    done = [row for row in rows if row["status"] == "done"]
    best = next((job for job in jobs if done and job.out.name == done[0]["job"]), None)
    command = best_command(best, sweep) if best else None
    files = [sweep.folder / "results.csv", sweep.folder / "results.json"]
    write_text(files[0], to_csv(rows, sweep.keys))
    content = {
        "sweep": sweep.folder.name,
        "objective": OBJECTIVE,
        "note": NOT_FOR_CHOOSING,
        **sweep.manifest,
        "best": {**done[0], "command": command} if done else None,
        "jobs": rows,
    }
    write_json(files[1], content)
    failed = [row for row in rows if row["status"] == "failed"]
    print(f"\n{sweep.folder.name}: {len(rows)} jobs, {len(done)} done, {len(failed)} failed\n")
    if done:
        print(format_rows(done, sweep.keys))
    files += comparison(sweep, [job for job in jobs if job.done])
    print("\n" + "\n".join(f"results          {shown(path)}" for path in files))
    if done:
        print(f"best             {shown(sweep.folder / done[0]['job'])}\n\n{command}", flush=True)
    return files


def comparison(sweep: Sweep, done: Sequence[Job]) -> list[Path]:
    """Writes the comparison page of the jobs that are done; says why where it cannot."""
    if not done:
        print("no job is done: there is nothing to compare")
        return []
    from deepacc_lightning.compare import compare

    folder, name = sweep.folder / "comparison", sweep.folder.name
    try:
        # It prints the same jobs in a table of its own.
        with redirect_stdout(io.StringIO()):
            return compare([job.out for job in done], folder, title=name)
    except UserError as error:
        print(f"no comparison page: {error}")
        return []


def table_rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Returns a row for each job, the best objective first, then those that failed or are undone.

    Returns:
        Rows of ``job`` (its folder), ``status``, ``values``, ``objective``, ``val``, ``test``,
        ``seconds`` and ``reason``; see :func:`~deepacc_lightning.jobs.train_job.summarize`.
    """
    rows = []
    for job in dict.fromkeys(jobs):
        row: dict[str, Any] = {"job": job.out.name, "status": "done", "values": dict(job.values)}
        if job.done:
            row |= {**job.result(), "reason": ""}
        else:
            row |= {"status": "failed" if job.reason() else "not done", "objective": None}
            row |= {"val": {}, "test": None, "seconds": None, "reason": job.reason()}
        rows.append(row)
    order = {"done": 0, "failed": 1, "not done": 2}
    return sorted(rows, key=lambda row: (order[row["status"]], -(row["objective"] or 0.0)))


def to_csv(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    """Formats rows as CSV: swept keys by their full names, metrics in percent."""
    metrics = [f"val/{key}" for key in (*SUMMARY_KEYS, "epoch")]
    tests = [f"test/{key}" for key in SUMMARY_KEYS]
    table = []
    for row in rows:
        found = {f"val/{k}": v for k, v in row["val"].items()}
        found |= {f"test/{k}": v for k, v in (row["test"] or {}).items()}
        cells = [row["values"].get(key, "") for key in keys]
        cells += [row["objective"], *(found.get(name) for name in (*metrics, *tests))]
        table.append([row["job"], row["status"], *cells, row["seconds"], row["reason"]])
    header = ["job", "status", *keys, "objective", *metrics, *tests, "seconds", "reason"]
    return csv_text(header, table)


def format_rows(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> str:
    """Formats the rows of done jobs as a table for people."""
    test = any(row["test"] for row in rows)
    names = list(short_names(keys).values())
    head = [*names, *(f"val {key}" for key in SHOWN_VAL), "epoch", "time"]
    head += [f"(test {key})" for key in SHOWN_TEST] if test else []
    body = []
    for row in rows:
        val = {**row["val"], "map50": row["objective"]}
        cells = [row["values"].get(key, "") for key in keys]
        cells += [_number(val.get(key)) for key in SHOWN_VAL]
        cells += [_number(val.get("epoch"), 0), format_duration(row["seconds"])]
        cells += [_number((row["test"] or {}).get(key)) for key in SHOWN_TEST] if test else []
        body.append(cells)
    align = ["right"] * len(head)
    text = tabulate(body, headers=head, disable_numparse=True, colalign=align, tablefmt="simple")
    return f"{text}\n\n{NOT_FOR_CHOOSING}" if test else text


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def best_command(job: Job, sweep: Sweep, root: Path | None = None) -> str:
    """Returns the ``make train`` that trains a job's configuration, to be pasted into a shell.

    Args:
        job: the job.
        sweep: the sweep that it is of.
        root: what paths are shown relative to; by default where the program runs, make's folder.
    """
    values: dict[str, str] = {}
    arguments, several = [], ""
    folder = partial(_from, root or Path.cwd())
    own = [f"{key}={value}" for key, value in job.values]
    for text in (*sweep.request.fixed, *own):
        override = parse(text)
        key, value = override.key_or_group, override.value()
        if key.startswith("sweep"):
            continue
        if key in VARIABLES and override.package is None:
            values[VARIABLES[key]] = str(value)
        elif key == "data" and override.package is None:
            values["DATA"] = str(value)
        elif key == "data.root" and isinstance(value, list):
            several = " ".join(shlex.quote(folder(_text(one))) for one in value)
        elif key == "data.root":
            values["DATA_DIR"] = folder(_text(value))
        else:
            arguments.append(text)
    values.setdefault("EXP", sweep.cfg.preset)
    if several:
        values["DATA"] = several
        values.pop("DATA_DIR", None)
    # The directory of a converted data set is what DATA takes as well; it needs a slash.
    elif values.get("DATA") == "coco" and "/" in values.get("DATA_DIR", ""):
        values["DATA"] = values.pop("DATA_DIR")
    if arguments:
        values["ARGS"] = " ".join(_for_args(text) for text in arguments)
    order = ("EXP", "SCALE", "DATA", "DATA_DIR", "SEED", "ARGS")
    words = [f"{name}={_for_make(values[name])}" for name in order if name in values]
    return " ".join(["make train", *words])


def _text(value: Any) -> str:
    return str(getattr(value, "text", value))


def _from(root: Path, path: str) -> str:
    """Returns a path relative to a folder that it is in, else as it is."""
    relative = os.path.relpath(path, root)
    return path if relative.startswith("..") else relative


def _for_args(text: str) -> str:
    # No shell sees the inside of ARGS: brackets need no quotes there.
    plain = not set(text) & set("'\"\\") and shlex.split(text) == [text]
    return text if plain else shlex.quote(text)


def _for_make(value: str) -> str:
    if shlex.quote(value) != value and not set(value) & set('"$`\\!'):
        return f'"{value}"'
    # Make expands variables in what it is given on its command line.
    return shlex.quote(value.replace("$", "$$"))
