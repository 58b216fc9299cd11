"""What a sweep is to do: its command line read, checked whole before anything starts, and named.

A sweep's folder and those of its jobs have names made of what is asked for and of nothing else, so
that the same command finds them again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from deepacc_d2.errors import ConfigError
from deepacc_lightning.core.cli import check_data_root, one_line
from deepacc_lightning.core.config import quoted
from deepacc_lightning.jobs.job import Job
from deepacc_lightning.jobs.sweep_check import (
    Defaults,
    Training,
    check_folder,
    check_jobs,
    check_settings,
    notes_on,
    refuse_unread,
    unread_keys,
)

OWN = {
    "out": "it is each job's folder: use OUT for the sweep's",
    "ckpt_path": "each job resumes from its own checkpoint by itself, leave CKPT out",
    "resume": "the same command continues by itself, leave RESUME out",
    "hydra/launcher": "use LAUNCHER",
    "hydra/sweeper": "use SWEEPER",
    "hydra.sweep.dir": "use OUT",
    "hydra.sweep.subdir": "use OUT",
    "hydra.mode": "leave it out",
}
"""Keys that a sweep sets, and what to say instead."""
MAX_NAME = 160
"""Characters of a folder's name: file systems allow 255, and names of locks are made of it."""


@dataclass(frozen=True)
class Request:
    """A sweep's command line, taken apart.

    Attributes:
        swept: overrides with several values, in the order given.
        fixed: the other ones, as they were typed, that hold for all jobs.
        hydra: those of Hydra itself, such as a launcher's options.
    """

    swept: tuple[Override, ...]
    fixed: tuple[str, ...]
    hydra: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep that was checked.

    Attributes:
        folder: its folder; absolute.
        cfg: its own config, composed with the first value of each swept key.
        request: its command line.
        keys: the swept keys.
        space: key to text of its distribution, in Hydra's grammar; empty for a grid.
        jobs: those of a grid; optuna's are not known yet.
        found: what the jobs train; for optuna, the ends of its space.
        notes: what the user should know, a line each.
    """

    folder: Path
    cfg: DictConfig
    request: Request
    keys: tuple[str, ...]
    space: Mapping[str, str]
    jobs: tuple[Job, ...] = ()
    found: tuple[Training, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def manifest(self) -> dict[str, Any]:
        """What ``sweep.json`` says: a folder holds one sweep, to which values may be added."""
        sweeper = str(self.cfg.sweep.sweeper)
        content = {"sweeper": sweeper, "keys": list(self.keys), "space": dict(self.space)}
        # Of a grid, each job's own config says it; trials of other settings would mislead optuna.
        first = json.loads(self.found[0].settings) if self.space and self.found else None
        return content | {"settings": first}

    def job(self, values: Mapping[str, str]) -> Job:
        """Makes the job of some values, texts of Hydra's grammar."""
        out = self.folder / job_name(values)
        own = [f"{key}={value}" for key, value in values.items()]
        own += [f"sweep.dir={quoted(self.folder)}", f"out={quoted(out)}"]
        preset, seed = values.get("experiment", self.cfg.preset), self.cfg.seed
        return Job(preset, seed, out, (*self.request.fixed, *own), tuple(values.items()))


def parse(text: str) -> Override:
    """Parses one override.

    Raises:
        ConfigError: it is none of Hydra's grammar.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(f"{text}: {one_line(error)}") from error


def read_request(
    overrides: Sequence[str], own: Mapping[str, str] = OWN, program: str = "sweep"
) -> Request:
    """Takes a command line apart.

    Args:
        overrides: of Hydra's grammar; of two for one key the last one holds.
        own: keys that the program sets, and what to say instead.
        program: ``sweep`` or ``ablation``.

    Raises:
        ConfigError: it is no override of Hydra's, or sets what the program sets.
    """
    parsed = {parse(text).get_key_element(): (text, parse(text)) for text in overrides}
    swept, fixed, hydra = [], [], []
    for text, override in parsed.values():
        key = override.key_or_group
        if key in own:
            raise ConfigError(f"{key} is set by the {program}: {own[key]}")
        if key.startswith("hydra.callbacks"):
            raise ConfigError(f"{key}: a job calls none of Hydra's callbacks, leave it out")
        if override.is_hydra_override():
            hydra.append(text)
        elif not override.is_sweep_override():
            fixed.append(text)
        elif key.startswith("sweep") and (override.package or "." in key):
            raise ConfigError(f"{text}: a setting of the sweep itself has one value")
        else:
            swept.append(override)
    return Request(tuple(swept), tuple(fixed), tuple(hydra))


def values_of(override: Override) -> list[str]:
    """Returns the values that a swept key takes one after another.

    Raises:
        ConfigError: they cannot be counted.
    """
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: a grid needs values, as in {override.key_or_group}=0.1,0.2; "
            "intervals are for SWEEPER=optuna"
        )
    return list(dict.fromkeys(override.sweep_string_iterator()))


def job_name(values: Mapping[str, str]) -> str:
    """Names a job's folder by its values, such as ``alpha=0.1,m=0.25``.

    Keys are cut to their last part where that keeps them apart; what a file system or a shell would
    stumble over is replaced, with a digest of what it was.
    """
    parts = [f"{short}={_plain(values[key])}" for key, short in short_names(values).items()]
    return _cut(",".join(parts))


def _plain(value: str) -> str:
    text = value.strip("'\"")
    plain = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII)
    return plain if plain == text and len(plain) <= 40 else f"{plain[:32]}-{_digest(value)}"


def _cut(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}-{_digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Maps keys to their last parts, or to the whole where two would be the same."""
    keys = list(keys)
    last = [re.split(r"[./@]", key)[-1].lstrip("+~") for key in keys]
    return {
        key: short if last.count(short) == 1 else re.sub(r"[/@]", ".", key.lstrip("+~"))
        for key, short in zip(keys, last, strict=True)
    }


def default_folder(cfg: DictConfig, keys: Sequence[str]) -> Path:
    """Names a sweep's folder by experiment, scale, data set, sweeper and swept keys.

    What is swept over is named as a key only.
    """
    parts = ["sweep"]
    for key, value in (("experiment", cfg.preset), ("scale", cfg.scale.name)):
        parts += [] if key in keys else [value]
    parts += [] if {"data", "data.root"} & set(keys) else [cfg.data.name]
    parts += [] if cfg.sweep.sweeper == "grid" else [cfg.sweep.sweeper]
    return Path("runs") / _cut("-".join([*parts, *short_names(keys).values()]))


def shown(path: Path) -> str:
    """Returns a path as people are to read it: from where the program runs, if it is below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def make_plan(overrides: Sequence[str]) -> Sweep:
    """Reads and checks a sweep's command line; composes every job of a grid.

    Raises:
        ConfigError: one line that names what is wrong and the fix.
    """
    request = read_request(overrides)
    defaults = Defaults()
    cfg = base_config(defaults, request)
    check_settings(cfg)
    check_data_root(cfg, several=True)
    optuna = cfg.sweep.sweeper == "optuna"
    if cfg.space is not None and not optuna:
        raise ConfigError("SPACE is what SWEEPER=optuna searches: add that, or give values in ARGS")
    if optuna and cfg.space is None and not request.swept:
        request = replace(request, fixed=(*request.fixed, "sweep@space=method"))
        cfg = base_config(defaults, request)
    space = read_space(cfg, request) if optuna else {}
    keys = tuple(space) if optuna else tuple(o.get_key_element() for o in request.swept)
    if not keys:
        raise ConfigError(
            'nothing to sweep over: give a key several values, as in ARGS="alpha=.05,.1,.2", or '
            "let SWEEPER=optuna search a SPACE"
        )
    sweep = Sweep(_folder(cfg, keys), cfg, request, keys, space)
    if not optuna:
        check_folder(sweep.folder, sweep.manifest)
        jobs = tuple(sweep.job(values) for values in grid(request))
        found = check_jobs(defaults, jobs)
        return replace(sweep, jobs=jobs, found=found, notes=notes_on(found, keys))
    found = check_jobs(defaults, [sweep.job(values) for values in corners(space)])
    unread = unread_keys(found, keys)
    given = [o.get_key_element() for o in request.swept]
    refuse_unread(unread if len(unread) == len(keys) else [k for k in unread if k in given])
    if unread:
        note = f"{cfg.preset} does not read {', '.join(unread)}: left out of the space"
        space = {key: text for key, text in space.items() if key not in unread}
        keys = tuple(space)
        sweep = Sweep(_folder(cfg, keys), cfg, request, keys, space, notes=(note,))
    sweep = replace(sweep, found=found)
    check_folder(sweep.folder, sweep.manifest)
    return sweep


def _folder(cfg: DictConfig, keys: Sequence[str]) -> Path:
    return Path(cfg.sweep.dir or default_folder(cfg, keys)).resolve()


def base_config(defaults: Defaults, request: Request) -> DictConfig:
    """Composes the sweep's own config, with one value of each swept key."""
    firsts = [f"{o.get_key_element()}={_ends(o)[0]}" for o in request.swept]
    return defaults.compose([*request.fixed, *firsts])


def grid(request: Request) -> list[dict[str, str]]:
    """Lists every combination of the swept values; the last key changes fastest.

    Raises:
        ConfigError: a key's values cannot be counted.
    """
    keys = [override.get_key_element() for override in request.swept]
    values = [values_of(override) for override in request.swept]
    return [dict(zip(keys, combination, strict=True)) for combination in itertools.product(*values)]


def read_space(cfg: DictConfig, request: Request) -> dict[str, str]:
    """Returns the search space: SPACE's, changed by what the command line says of its keys.

    Raises:
        ConfigError: an entry is no sweep of Hydra's grammar.
    """
    declared = {} if cfg.space is None else OmegaConf.to_container(cfg.space)
    space = {}
    for key, text in dict(declared).items():  # type: ignore[arg-type]
        try:
            swept = parse(f"{key}={text}").is_sweep_override()
        except ConfigError:
            swept = False
        if not swept:
            raise ConfigError(
                f"space.{key}={text}: expected interval(low, high), tag(log, interval(low, high)) "
                "or choice(a, b)"
            )
        space[str(key)] = str(text)
    for text in request.fixed:
        space.pop(parse(text).get_key_element(), None)
    for override in request.swept:
        space[override.get_key_element()] = str(override.input_line).partition("=")[2]
    return space


def corners(space: Mapping[str, str]) -> list[dict[str, str]]:
    """Lists points that show what a space holds: each key's ends with the others at their first.

    They are tried with each choice of an experiment.
    """
    ends = {key: _ends(parse(f"{key}={text}")) for key, text in space.items()}
    points = []
    for experiment in ends.get("experiment", [""]):
        base = {key: values[0] for key, values in ends.items()}
        if experiment:
            base["experiment"] = experiment
        points.append(base)
        for key, values in ends.items():
            if key != "experiment":
                points += [{**base, key: value} for value in values[1:]]
    return points


def _ends(override: Override) -> list[str]:
    if override.is_interval_sweep():
        interval = override.value()
        return [str(interval.start), str(interval.end)]  # type: ignore[union-attr]
    return values_of(override)
