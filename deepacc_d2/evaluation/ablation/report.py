"""An ablation (Tables 1, 2 of Luo et al. 2020) from finished runs: a folder of tables, figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.ablation.plots import plot_confusions, plot_differences
from deepacc_d2.evaluation.ablation.result import AblationResult, in_order, to_dict, write_csv
from deepacc_d2.evaluation.ablation.tables import (
    confusions_markdown,
    format_metrics,
    metrics_markdown,
)
from deepacc_d2.evaluation.finished_runs import compare_finished
from deepacc_d2.evaluation.tally import number_cases
from deepacc_d2.files import whole_file

__all__ = [
    "AblationResult",
    "confusions_markdown",
    "format_metrics",
    "metrics_markdown",
    "update_section",
    "write_ablation_report",
]


def write_ablation_report(
    out_dir: str | Path,
    runs: Mapping[str, Sequence[str | Path]],
    coco: Mapping[str, Any],
    *,
    title: str,
    facts: Mapping[str, Any],
    commands: Sequence[str],
    reference: str = "sep",
    resamples: int = 2000,
    seed: int = 0,
) -> AblationResult:
    """Compares finished runs and writes the report; each file appears whole or not at all.

    Args:
        out_dir: folder, made if missing; files of an earlier report are replaced.
        runs: directories of the runs of each preset, one per seed. The presets of Table 1 are
            put in its order, others follow.
        coco: ground truth of the split that all runs were tested on.
        title: of the report, one line.
        facts: what else the reader must know (device, steps, trunk), as a list.
        commands: shell lines that give this result.
        reference: the preset to compare with.
        resamples: number of bootstrap resamples.
        seed: of the resamples.

    Returns:
        The result; its ``files`` are ``metrics.{json,csv,md}``, ``confusions.md``, ``metrics.png``
        and ``confusions.png``.

    Raises:
        DataError: a file of a run is missing, broken, of other images than the ground truth, or
            contradicts the others.
        ConfigError: no run at all, a run given twice, or a folder that cannot be written to.
    """
    every = [Path(run).resolve() for own in runs.values() for run in own]
    if not every:
        raise ConfigError("no run is given: there is nothing to compare")
    for folder in every:
        if every.count(folder) > 1:
            raise ConfigError(f"run {folder} is given twice: give one run per preset and seed")
    order = in_order(runs)
    statistics, settings = compare_finished(
        {preset: runs[preset] for preset in order},
        coco,
        reference=reference,
        resamples=resamples,
        seed=seed,
    )
    result = AblationResult(
        title=title,
        presets=statistics,
        runs={preset: [Path(run) for run in runs[preset]] for preset in order},
        reference=reference,
        resamples=resamples,
        seed=seed,
        num_images=len(coco["images"]),
        num_cases=int(number_cases(coco).max(initial=-1)) + 1,
        num_gt=len(coco["annotations"]),
        settings=settings,
        facts=dict(facts),
        commands=list(commands),
    )
    return replace(result, files=_write(Path(out_dir), result))


def update_section(path: str | Path, name: str, text: str) -> None:
    """Replaces a marked section of a Markdown file; the rest of the file stays as it is.

    The section is between the lines ``<!-- begin NAME -->`` and ``<!-- end NAME -->``. Where
    they are missing it is appended, where the file is missing that is made.

    Args:
        path: the file.
        name: of the section.
        text: its new content.

    Raises:
        DataError: the markers are there but not one of each, in this order.
        ConfigError: the file cannot be read or written.
    """
    target = Path(path).resolve()  # a link stays a link
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    try:
        old = target.read_bytes().decode("utf-8") if target.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path} ({error}): fix it or give another file") from error
    section = f"{begin}\n{text.strip()}\n{end}"
    if begin not in old and end not in old:
        before = old.rstrip() + "\n\n" if old.strip() else ""
        new = f"{before}{section}\n"
    elif old.count(begin) == old.count(end) == 1 and old.index(begin) < old.index(end):
        new = old[: old.index(begin)] + section + old[old.index(end) + len(end) :]
    else:
        raise DataError(f"{path} must have {begin!r} and {end!r} once each, in this order: fix it")

    def write(temporary: Path) -> None:
        temporary.write_bytes(new.encode("utf-8"))
        if target.exists():
            shutil.copymode(target, temporary)

    _write_whole(target, write)


def _write(folder: Path, result: AblationResult) -> list[Path]:
    """Writes all files, numbers first: a figure that fails must not cost them."""
    content = json.dumps(to_dict(result), allow_nan=False, indent=2, ensure_ascii=False)
    table, confusions = metrics_markdown(result), confusions_markdown(result)
    writers: dict[str, Callable[[Path], object]] = {
        "metrics.json": lambda path: path.write_text(content + "\n", encoding="utf-8"),
        "metrics.csv": lambda path: write_csv(path, result),
        "metrics.md": lambda path: path.write_text(table, encoding="utf-8"),
        "confusions.md": lambda path: path.write_text(confusions, encoding="utf-8"),
        "metrics.png": lambda path: plot_differences(result).savefig(path, format="png", dpi=110),
        "confusions.png": lambda path: plot_confusions(result).savefig(path, format="png", dpi=110),
    }
    return [_write_whole(folder / name, write) for name, write in writers.items()]


def _write_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Writes a file under a temporary name first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            write(temporary)
        return path
    except OSError as error:
        raise ConfigError(
            f"cannot write {path} ({error.strerror}): choose another place"
        ) from error
