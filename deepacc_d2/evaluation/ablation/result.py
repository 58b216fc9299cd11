"""The result of an ablation, and its files for machines: JSON content and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepacc_d2.evaluation.bootstrap import METRICS, Estimate, PresetStatistics, plain
from deepacc_d2.evaluation.tally import ERRORS, GROUPS
from deepacc_d2.files import csv_text

ROWS: dict[str, tuple[str, str]] = {
    "retinanet": ("", "RetinaNet"),
    "baseline": ("a", "Faster R-CNN"),
    "sep": ("b", "sep"),
    "aam": ("c", "sep + AAM"),
    "siamese": ("d", "sep + siamese"),
    "siamese_aam": ("e", "sep + siamese + AAM"),
    "siamese_gia": ("f", "sep + siamese + AAM + GIA"),
    "deepacc": ("", "sep + siamese + AAM + GIA, pair centers"),
}
"""Row of Table 1 of Luo et al. 2020, "" outside it, and what the model consists of, by preset.

RetinaNet and Faster R-CNN are of Table 2, where DeepACC is ``siamese_gia``.
"""


@dataclass(frozen=True, eq=False)
class AblationResult:
    """An ablation, compared.

    Attributes:
        title: of the report, one line.
        presets: by preset, in the order of the rows.
        runs: directories of the runs of each preset, one per seed.
        reference: the preset that the others are compared with.
        resamples: number of bootstrap resamples.
        seed: of the resamples.
        num_images: images in the test split.
        num_cases: cases that they are of; images without one count as a case each.
        num_gt: chromosomes in the test split.
        settings: options of ``compute_metrics``, the same for all runs.
        facts: what else the reader must know: device, steps, trunk.
        commands: shell lines that give this result.
        files: what was written.
    """

    title: str
    presets: Mapping[str, PresetStatistics]
    runs: Mapping[str, Sequence[Path]]
    reference: str
    resamples: int
    seed: int
    num_images: int
    num_cases: int
    num_gt: int
    settings: Mapping[str, float | int]
    facts: Mapping[str, Any]
    commands: Sequence[str]
    files: Sequence[Path] = ()

    @property
    def has_reference(self) -> bool:
        """Whether there are differences."""
        return self.reference in self.presets


def row_of(preset: str) -> tuple[str, str]:
    """Returns the row letter ("(a)", or "" outside Table 1) and what the model consists of.

    A preset with settings of its own, such as ``siamese+center=pair``, has its row's letter with a
    prime.
    """
    name, *changes = preset.split("+")
    letter, parts = ROWS.get(name, ("", name))
    prime = "'" if changes else ""
    return f"({letter}{prime})" if letter else "", ", ".join([parts, *changes])


def in_order(presets: Iterable[str]) -> list[str]:
    """Puts presets in the order of Table 1, each before those with settings of their own."""
    ranks = {name: rank for rank, name in enumerate(ROWS)}
    return sorted(presets, key=lambda p: (ranks.get(p.split("+")[0], len(ranks)), "+" in p))


def to_dict(result: AblationResult) -> dict[str, Any]:
    """Returns the content of ``metrics.json``: plain values, ``None`` where undefined."""
    return {
        "title": result.title,
        "reference": result.reference if result.has_reference else None,
        "bootstrap": {"resamples": result.resamples, "seed": result.seed, "interval_percent": 95},
        "num_images": result.num_images,
        "num_cases": result.num_cases,
        "num_gt": result.num_gt,
        "settings": dict(result.settings),
        "facts": {key: plain(value) for key, value in result.facts.items()},
        "commands": list(result.commands),
        "presets": {
            preset: {
                "row": row_of(preset)[0].strip("()") or None,
                "model": row_of(preset)[1],
                "seeds": len(statistics.metrics.values),
                "runs": [str(run) for run in result.runs[preset]],
                "metrics": {
                    name: _estimate(statistics.metrics, (column,))
                    for column, name in enumerate(METRICS)
                },
                "errors": {
                    name: {
                        group: _estimate(statistics.errors, (row, column))
                        for column, group in enumerate(GROUPS)
                    }
                    for row, name in enumerate(ERRORS)
                },
            }
            for preset, statistics in result.presets.items()
        },
    }


def write_csv(path: Path, result: AblationResult) -> None:
    """Writes one row per preset; an undefined value is an empty field."""
    parts = ("mean", "sd", "difference", "low", "high")
    columns = [f"{name}_{part}" for name in METRICS for part in parts]
    rows = []
    for preset, entry in to_dict(result)["presets"].items():
        cells = []
        for name in METRICS:
            estimate = entry["metrics"][name]
            flat = {**estimate, **(estimate["difference"] or {})}
            flat["difference"] = flat.pop("value", None)
            cells += [flat.get(part) for part in parts]
        rows.append([entry["row"], preset, entry["model"], entry["seeds"], *cells])
    path.write_text(csv_text(["row", "preset", "model", "seeds", *columns], rows), encoding="utf-8")


def _estimate(found: Estimate, cell: tuple[int, ...]) -> dict[str, Any]:
    return {
        "values": [plain(values[cell]) for values in found.values],
        "mean": plain(found.mean[cell]),
        "sd": plain(found.sd[cell]),
        "difference": found.interval(cell),
    }
