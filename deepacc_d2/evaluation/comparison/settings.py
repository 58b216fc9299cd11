"""What differs between the settings of runs, found without a list of keys, and what they share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepacc_d2.checkpoint import with_later_keys
from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.comparison.runs import Run

SEED = "seed"
IGNORED = (
    "out",
    "group",
    "wandb_id",
    "resume",
    "ckpt_path",
    "test",
    "hydra",
    "logger",
    "callbacks",
    "sweep",
    "ablation",
    "pixel_mean",
    "pixel_std",
    "model.pixel_mean",
    "model.pixel_std",
    "data.name",
    "data.root",
    "data.generate",
    "data.cases",
    "scale.num_workers",
    "scale.test_batch_size",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.sync_batchnorm",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
)
"""Keys, or whole nodes, that say where a run is, what it logs, on what hardware it ran, or that
are taken from the data, which are compared by their fingerprint."""
KEPT = ("ablation.protocol", "callbacks.ema")
"""Exceptions within these nodes."""
METHOD = ("alpha", "beta", "gamma", "m", "s", "delta", "center", "center_share")
FIRST = ("preset", SEED, *METHOD)
"""Keys at the root of the config, in the order in which they are shown."""
DERIVED = ("model.", "optim.", "trainer.", "scale.", "heads.")
"""Nodes whose values may come from elsewhere: from the preset, the scale or the root keys."""
BY_PRESET = ("center", "center_share")
"""Keys at the root of the config that a preset may bring."""
LONGEST = 40
"""Characters of a value that are shown at most."""
MISSING = "-"
"""Stands for the value of a key that a run does not have."""

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Settings:
    """The settings of several runs.

    Attributes:
        varying: by full key, such as ``optim.optimizer.lr``, its value in each run.
        labels: by full key of ``varying``, its shortest name that is unique: ``lr``.
        common: by full key, the value that all runs share.
        flat: by run, all its settings.
    """

    varying: Mapping[str, Sequence[Value]]
    labels: Mapping[str, str]
    common: Mapping[str, Value]
    flat: Sequence[Mapping[str, Value]]

    @property
    def parameters(self) -> list[str]:
        """Full keys that vary, without the seed."""
        return [key for key in self.varying if key != SEED]

    def resolve(self, name: str) -> str:
        """Returns the full key that a label, a full key or an unambiguous end of one names.

        Raises:
            ConfigError: no or several keys are so named.
        """
        for key, label in self.labels.items():
            if name in (key, label):
                return key
        every = dict.fromkeys(key for flat in self.flat for key in flat)
        if name in every:
            return name
        ends = [key for key in every if key.endswith(f".{name}")]
        if len(ends) == 1:
            return ends[0]
        known = ", ".join(self.labels.values()) or "none differs between these runs"
        what = f"is several keys ({', '.join(ends[:3])})" if ends else "is no key of these runs"
        raise ConfigError(f"BY={name} {what}: those that differ are {known}")

    def values(self, key: str) -> list[Value]:
        """Returns the value of any full key in each run, :data:`MISSING` where it has none."""
        return [flat.get(key, MISSING) for flat in self.flat]


def flatten(node: Any, prefix: str = "") -> dict[str, Value]:
    """Flattens nested dicts to dotted keys; a list becomes its JSON text."""
    if isinstance(node, dict) and node:
        flat: dict[str, Value] = {}
        for key, value in node.items():
            flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    if isinstance(node, (str, int, float, bool, type(None))):
        return {prefix: node}
    return {prefix: json.dumps(node, default=str)}


def compare_settings(runs: Sequence[Run], reserved: Iterable[str] = ()) -> Settings:
    """Finds what differs between the settings of runs.

    A key that only repeats another one is left out: what the config takes from a root key or from
    the scale (a copy of its value), and what a preset brings to the model or a scale to anything
    (constant in each, and not named on the command line of a run).

    Args:
        runs: at least one.
        reserved: labels that may not be used.
    """
    flat = [_wanted(run) for run in runs]
    every = list(dict.fromkeys([*FIRST, *(key for settings in flat for key in settings)]))
    columns = {key: [settings.get(key, MISSING) for settings in flat] for key in every}
    differing = [key for key in every if len(set(map(_hashable, columns[key]))) > 1]
    explicit = {key for run in runs for key in _overridden(run)}
    accepted: list[str] = []
    for key in sorted(differing, key=lambda k: _rank(k, explicit)):
        copies = any(_copies(columns[key], columns[other]) for other in accepted)
        # A preset is a choice of model; a scale chooses all the rest as well.
        of_preset = key.startswith("model.") or key in BY_PRESET
        origins = ("preset", "scale.name") if of_preset else ("scale.name",)
        brought = key not in explicit and any(
            other in accepted and _follows(columns[key], columns[other]) for other in origins
        )
        if (key.startswith(DERIVED) or key in BY_PRESET) and (copies or brought):
            continue
        accepted.append(key)
    accepted.sort(key=lambda k: (FIRST.index(k) if k in FIRST else len(FIRST), every.index(k)))
    return Settings(
        varying={key: columns[key] for key in accepted},
        labels=short_labels(accepted, reserved),
        common={
            key: columns[key][0]
            for key in every
            if key not in differing and columns[key][0] != MISSING
        },
        flat=flat,
    )


def short_labels(keys: Sequence[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Returns for each dotted key its shortest end that no other key and no reserved name has."""
    taken = set(reserved)
    labels = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        free = (
            end
            for end in ends
            if end not in taken
            and not any(o != key and (o == end or o.endswith(f".{end}")) for o in keys)
        )
        labels[key] = next(free, key)
    return labels


def show(value: Value) -> str:
    """Formats a setting: 0.1, 1e-05, null, true; of a long text, such as a path, the end."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"


def inseparable(settings: Settings) -> list[tuple[str, ...]]:
    """Returns the labels of settings that always vary together, so that their effects cannot be
    told apart.

    Settings that are different in each of many runs, as samples are, do not count.
    """
    together: dict[tuple[int, ...], list[str]] = {}
    for key in settings.parameters:
        column = [_hashable(value) for value in settings.varying[key]]
        distinct = list(dict.fromkeys(column))
        if len(distinct) < len(column) or len(column) <= 3:
            pattern = tuple(distinct.index(value) for value in column)
            together.setdefault(pattern, []).append(settings.labels[key])
    return [tuple(labels) for labels in together.values() if len(labels) > 1]


def _wanted(run: Run) -> dict[str, Value]:
    def within(key: str, names: Sequence[str]) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in names)

    out = run.config.get("out")

    def placeless(value: Value) -> Value:
        """The value without the run's own directory, which any part may contain."""
        own = isinstance(value, str) and isinstance(out, str) and len(out) > 1
        return value.replace(out, "OUT") if own else value  # type: ignore[union-attr, arg-type]

    flat = flatten(with_later_keys(run.config))
    if flat.get("data.weights") is None:
        flat.pop("data.weights", None)  # as in a run from before there were any
    return {
        key: placeless(value)
        for key, value in flat.items()
        if within(key, KEPT) or not within(key, IGNORED)
    }


def _overridden(run: Run) -> set[str]:
    """Returns the keys that the command line of a run named."""
    words = []
    for name in ("command", "overrides"):
        given = run.facts.get(name)
        words += [str(word) for word in given] if isinstance(given, list) else []
    return {word.partition("=")[0].lstrip("+~") for word in words if "=" in word}


def _rank(key: str, explicit: set[str]) -> tuple[int, int]:
    if key in FIRST:
        return 0, FIRST.index(key)
    if not key.startswith(DERIVED):
        return 1, 0
    nodes = ("scale.", "heads.", "optim.", "trainer.", "model.")
    return (2 if key in explicit or key == "scale.name" else 3), next(
        number for number, node in enumerate(nodes) if key.startswith(node)
    )


def _copies(column: Sequence[Value], other: Sequence[Value]) -> bool:
    pairs = [(a, b) for a, b in zip(column, other, strict=True) if a != MISSING]
    return len({_hashable(a) for a, _ in pairs}) > 1 and all(
        _hashable(a) == _hashable(b) for a, b in pairs
    )


def _follows(column: Sequence[Value], other: Sequence[Value]) -> bool:
    """Whether a column is constant wherever the other one is."""
    seen: dict[Any, Any] = {}
    return all(
        seen.setdefault(_hashable(b), _hashable(a)) == _hashable(a)
        for a, b in zip(column, other, strict=True)
    )


def _hashable(value: Value) -> Any:
    # 1 and 1.0 are one setting, True and 1 are not.
    return (isinstance(value, bool), value)
