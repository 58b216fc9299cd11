"""Run directories found and read back, whatever state they are in."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from deepacc_d2.errors import DataError
from deepacc_d2.evaluation.types import SUMMARY_KEYS

FACTS = "run.json"
CONFIG = "config.yaml"
HISTORY = Path("csv") / "metrics.csv"
TEST = Path("test") / "metrics.json"
FAILURE = "failed.txt"
NOT_SEARCHED = ("checkpoints", "csv", "wandb", "cache", "logs", "report", "test")
"""Folders of runs and ablations that hold no runs."""
TRUNK = "trunk"
"""Folder of an ablation's shared trunk, which is a training but not one to compare."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        path: its directory.
        name: unique among the runs of a comparison: the path below what they have in common.
        config: content of ``config.yaml``.
        facts: content of ``run.json``.
        history: content of ``csv/metrics.csv``, one row per logged step; empty where there is none.
        test: content of ``test/metrics.json``; ``None`` for a run that was not to be tested.
    """

    path: Path
    name: str
    config: dict[str, Any]
    facts: dict[str, Any]
    history: pd.DataFrame = field(repr=False)
    test: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the data set."""
        return _part(self.facts, "data").get("fingerprint")

    @property
    def data_name(self) -> str | None:
        """Name of the data set."""
        return _part(self.facts, "data").get("name")

    @property
    def revision(self) -> str | None:
        """Git revision of the sources, marked where they differed from it."""
        git = _part(self.facts, "git")
        revision = git.get("revision")
        return f"{revision} (with changes)" if revision and git.get("dirty") else revision

    def validation(self) -> pd.DataFrame:
        """Returns the ``val/`` columns that were logged, one row per epoch validated.

        A resumed run may have validated an epoch twice; the later row counts.
        """
        columns = [name for name in self.history.columns if name.startswith("val/")]
        if not columns:
            return pd.DataFrame(columns=["epoch"])
        rows = self.history.dropna(subset=columns, how="all")
        return rows.groupby("epoch", as_index=False)[columns].last()

    def best(self) -> dict[str, float]:
        """Returns ``map50`` and ``aer`` on validation (percent) and ``epoch`` of the best
        checkpoint, chosen by ``val/map50``; NaN where unknown.
        """
        found = {"map50": math.nan, "aer": math.nan, "epoch": math.nan}
        rows = self.validation()
        if "val/map50" in rows and rows["val/map50"].notna().any():
            row = rows.loc[rows["val/map50"].idxmax()]
            found = {
                "map50": float(row["val/map50"]),
                "aer": float(row.get("val/aer", math.nan)),
                "epoch": float(row["epoch"]),
            }
        best = _part(self.facts, "best")
        score = best.get("score")
        if best.get("monitor", "val/map50") == "val/map50" and isinstance(score, (int, float)):
            found["map50"] = float(score)
        return found


@dataclass(frozen=True)
class LeftOut:
    """A run directory that cannot be compared.

    Attributes:
        path: its directory.
        name: as of :class:`Run`.
        state: ``unfinished``, ``failed``, ``damaged`` or ``not a rival``.
        reason: one line.
    """

    path: Path
    name: str
    state: str
    reason: str


class _NotComparableError(Exception):
    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state, self.reason = state, reason


def find_runs(patterns: Sequence[str | Path]) -> list[Path]:
    """Lists the run directories at or below some paths, each once, sorted within each path.

    A directory is a run's if it has ``run.json``, or ``config.yaml`` next to ``csv`` or
    ``checkpoints``; or if a sweep has noted its failure there (``failed.txt``), or an ablation
    next to it (``.NAME.failed``).

    Args:
        patterns: directories, or shell patterns such as ``runs/sep-*``.

    Raises:
        DataError: nothing was given, a path does not exist, or it holds no run.
    """
    if not patterns:
        raise DataError('no runs were named: pass RUNS="runs/a runs/b"')
    found: dict[Path, None] = {}
    for pattern in patterns:
        roots = [Path(pattern)]
        if not roots[0].exists():
            roots = [Path(match) for match in sorted(glob.glob(str(pattern)))]  # noqa: PTH207
        if not roots:
            raise DataError(f"{pattern} does not exist: name directories of runs by RUNS=")
        here = [run for root in roots for run in _runs_below(root)]
        if not here:
            raise DataError(
                f"no run was found under {pattern}: a run's directory has {CONFIG} and {FACTS}"
            )
        found.update(dict.fromkeys(here))
    return list(found)


def _runs_below(root: Path) -> list[Path]:
    found: set[Path] = set()
    for folder, names, files in os.walk(root):
        path = Path(folder).resolve()
        begun = CONFIG in files and {"csv", "checkpoints"} & set(names)
        if FACTS in files or FAILURE in files or begun:
            found.add(path)
        for mark in files:
            if mark.startswith(".") and mark.endswith(".failed"):
                found.add(path / mark[1 : -len(".failed")])
        names[:] = [n for n in names if n not in NOT_SEARCHED and not n.startswith(".")]
    return sorted(found)


def read_runs(paths: Sequence[Path]) -> tuple[list[Run], list[LeftOut]]:
    """Reads runs; what cannot be compared is returned with the reason, never raised."""
    names = short_names(paths)
    runs, left_out = [], []
    for path, name in zip(paths, names, strict=True):
        try:
            runs.append(_read_run(path, name))
        except _NotComparableError as error:
            reason = " ".join(_failure(path).split()) or error.reason
            left_out.append(LeftOut(path, name, error.state, reason))
    return runs, left_out


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names directories by what of their paths is not common to all."""
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < 2:
        return [path.name for path in whole]
    common = Path(os.path.commonpath(whole))
    return [str(path.relative_to(common)) if path != common else path.name for path in whole]


def _read_run(path: Path, name: str) -> Run:
    if not (path / FACTS).is_file():
        state = "failed" if _failure(path) else "unfinished"
        raise _NotComparableError(state, f"no {FACTS}: it ended before its training began")
    facts = _json(path / FACTS)
    _check_state(path, facts)
    config = _yaml(path / CONFIG)
    if path.name == TRUNK and "ablation" in config and config.get("test") is False:
        raise _NotComparableError("not a rival", "the frozen trunk that the other runs share")
    test = _json(path / TEST) if (path / TEST).is_file() else None
    if test is None and "status" not in facts and config.get("test", True):
        raise _NotComparableError("unfinished", "trained, but not tested: the test was stopped")
    if test is not None:
        _check_test(path / TEST, test)
    return Run(path, name, config, facts, _history(path / HISTORY), test)


def _check_state(path: Path, facts: dict[str, Any]) -> None:
    status = facts.get("status", "finished" if "steps" in facts else "running")
    if status == "finished":
        return
    if status == "failed":
        why = facts.get("error") or "its training failed; the output of the command says why"
        raise _NotComparableError("failed", " ".join(str(why).split()))
    stage = _stage(path / HISTORY)
    what = "still running, or killed" if status == "running" else str(status)
    raise _NotComparableError("unfinished", f"{what}{stage}")


def _stage(path: Path) -> str:
    """Says how far an unfinished run has come."""
    try:
        history = _history(path)
    except _NotComparableError:
        return ""
    if history.empty or history["step"].isna().all():
        return ""
    return f", {int(history['step'].max()) + 1} steps logged"


def _failure(path: Path) -> str:
    """Returns what an ablation or a sweep noted of a job's failure."""
    for mark in (path.parent / f".{path.name}.failed", path / FAILURE):
        try:
            return mark.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    return ""


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _NotComparableError(
            "damaged", f"{path.name} cannot be read ({error.strerror})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise _NotComparableError(
            "damaged", f"{path.name} is no complete JSON ({error}): was it cut short?"
        ) from None
    if not isinstance(content, dict):
        raise _NotComparableError("damaged", f"{path.name} holds no table of keys and values")
    return content


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise _NotComparableError(
            "damaged", f"{path.name} cannot be read ({error.strerror})"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise _NotComparableError("damaged", f"{path.name} is no YAML ({first})") from None
    if not isinstance(content, dict) or "preset" not in content:
        raise _NotComparableError("damaged", f"{path.name} is not the config of a training")
    return content


def _check_test(path: Path, test: dict[str, Any]) -> None:
    for key in SUMMARY_KEYS:
        if key not in test or not isinstance(test[key], (int, float, type(None))):
            raise _NotComparableError("damaged", f"test/{path.name} has no number {key!r}")
    for key in ("per_class", "per_group"):
        if not isinstance(test.get(key), dict):
            raise _NotComparableError("damaged", f"test/{path.name} has no table {key!r}")


def _history(path: Path) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=["epoch", "step"])
    try:
        table = pd.read_csv(path)
        if not {"epoch", "step"} <= set(table.columns):
            raise ValueError("it has no columns epoch and step")
        return table.apply(pd.to_numeric, errors="raise")
    except (OSError, ValueError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise _NotComparableError("damaged", f"{path.name} cannot be read ({first})") from None


def _part(facts: dict[str, Any], key: str) -> dict[str, Any]:
    part = facts.get(key)
    return part if isinstance(part, dict) else {}
