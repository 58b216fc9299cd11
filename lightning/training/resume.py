"""``RESUME=<run dir>``: a training that continues in its own directory as if it had not stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.moved import with_present_names
from deepacc_d2.partial import clear_files
from deepacc_lightning.core.config import compose_config, quoted, recorded
from deepacc_lightning.core.processes import is_main_process
from deepacc_lightning.training.checkpoint_io import newest_intact
from deepacc_lightning.training.run_settings import first_difference, settings_of


def is_finished(run_dir: str | Path) -> bool:
    """Says whether there is nothing to continue: the run was trained and tested to its end.

    Raises:
        DataError: there is no run.
    """
    return read_run_dir(Path(run_dir))[1].get("status") == "finished"


def continued(run_dir: str | Path, overrides: Iterable[str]) -> DictConfig:
    """Composes the config of a run that is resumed.

    Args:
        run_dir: its run directory.
        overrides: what is said now; what was said when the run began holds where this is silent.

    Returns:
        The run's config, with ``out`` its directory and ``ckpt_path`` its newest checkpoint that
        can be read, null if it has none yet.

    Raises:
        DataError: there is no run, or none of its checkpoints can be read.
        ConfigError: the run is of another experiment or has other settings than are asked for.
    """
    folder = Path(run_dir).resolve()
    saved, facts = read_run_dir(folder)
    if saved.get("ablation", {}).get("protocol") == "heads":
        raise ConfigError(f"{folder} trains heads alone: repeat the same `make ablation` command")
    said = {_key(o): o for o in overrides}
    if "out" in said and Path(said["out"].partition("=")[2].strip("'\"")).resolve() != folder:
        raise ConfigError(f"RESUME={folder} continues in that directory: leave OUT out")
    now = {key: o for key, o in said.items() if key not in ("resume", "out", "ckpt_path")}
    begun = facts.get("overrides")
    if begun is not None:
        merged = {**{_key(o): o for o in begun}, **now}
        cfg = compose_config("train", [*merged.values(), f"out={quoted(folder)}"])
    elif now:
        raise ConfigError(
            f"{folder} was not begun by make train: leave everything but RESUME out, or resume by "
            "the command that began it"
        )
    else:
        cfg = OmegaConf.create(_moved(saved, str(saved["out"]), str(folder)))
        # How the command that began it would stop it; in older runs a callback of its own.
        cfg.callbacks.pop("stop", None)
        if cfg.callbacks.get("stop_on_signal"):
            cfg.callbacks.stop_on_signal.asked = None
    found, wanted = settings_of(saved), settings_of(recorded(cfg))
    for key, value in wanted.items():
        difference = first_difference(found.get(key), value, key)
        if difference:
            raise ConfigError(
                f"{folder} holds a run of other settings ({difference}): leave EXP and ARGS out to "
                "continue as it began, or start another run from it with CKPT= and another OUT="
            )
    cfg.out = str(folder)
    cfg.resume = str(folder)
    newest = last_checkpoint(folder)
    if newest is None and is_main_process():
        start = f"again from {cfg.ckpt_path}" if cfg.ckpt_path else "from the beginning"
        print(f"{folder} has no checkpoint yet: it starts {start}", flush=True)
    cfg.ckpt_path = newest or cfg.ckpt_path
    return cfg


def read_run_dir(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads ``config.yaml`` and ``run.json`` of a run directory.

    Raises:
        DataError: one of them is missing or damaged.
    """
    try:
        saved = with_present_names(
            yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        )
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is no run directory ({Path(error.filename).name} is missing): pass "
            "RESUME=<directory that make train wrote>"
        ) from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"config.yaml or run.json of {folder} is damaged: {error}") from error
    if not isinstance(saved, dict) or not isinstance(facts, dict) or "preset" not in saved:
        raise DataError(f"config.yaml or run.json of {folder} is damaged: no preset in it")
    return saved, facts


def last_checkpoint(folder: Path) -> str | None:
    """Finds the checkpoint that a run resumes from, and says what is wrong with newer ones.

    Those are put aside: the next ``last.ckpt`` would make one of them the ``previous.ckpt``.

    Raises:
        DataError: there are checkpoints, but none can be read.
    """
    checkpoints = folder / "checkpoints"
    path, problems = newest_intact(checkpoints)
    if path is None and problems:
        first = next(iter(problems.values()))
        raise DataError(f"{first}; no other checkpoint in {checkpoints}: train anew")
    if is_main_process():
        for damaged, problem in problems.items():
            print(f"warning: {problem}", flush=True)
            damaged.replace(damaged.with_name(f"{damaged.name}.damaged"))
        if problems:
            print(f"continuing from the one before it, {path}", flush=True)
        clear_files([folder, *(path for path in folder.rglob("*") if path.is_dir())])
    return str(path) if path else None


def go_on_from_last(cfg: DictConfig) -> None:
    """Points a config at the newest intact checkpoint of its own run directory, if there is one."""
    cfg.ckpt_path = last_checkpoint(Path(cfg.out)) or cfg.ckpt_path


def recorded_overrides(cfg: DictConfig, given: list[str] | None) -> list[str] | None:
    """Returns what ``run.json`` is to say that the run was begun with.

    Args:
        cfg: the run's config.
        given: what was said on this command line; for a resumed run, what was said at first
            stays.
    """
    if not cfg.resume:
        return given
    begun: list[str] | None = read_run_dir(Path(cfg.resume))[1].get("overrides")
    return begun


def relocate(checkpoint: dict[str, Any], run_dir: str | Path) -> None:
    """Lets checkpoint callbacks find their files in a run directory that was moved.

    Args:
        checkpoint: as Lightning loads it, before its callbacks' states are restored.
        run_dir: where the run is now.
    """
    folder = Path(run_dir) / "checkpoints"
    for state in checkpoint.get("callbacks", {}).values():
        if not isinstance(state, dict) or "dirpath" not in state:
            continue
        state["dirpath"] = str(folder)
        for key in ("best_model_path", "last_model_path", "kth_best_model_path"):
            if state.get(key):
                state[key] = str(folder / Path(state[key]).name)
        state["best_k_models"] = {
            str(folder / Path(path).name): score
            for path, score in (state.get("best_k_models") or {}).items()
        }


def check_same_data(run_dir: str | Path, fingerprint: str) -> None:
    """Checks that a run continues with the data set that it began with.

    Raises:
        DataError: it does not.
    """
    began_with = (read_run_dir(Path(run_dir))[1].get("data") or {}).get("fingerprint")
    if began_with and began_with != fingerprint:
        raise DataError(
            f"{run_dir} was trained on another data set (fingerprint {began_with[:12]}, now "
            f"{fingerprint[:12]}): pass the DATA (and data.weights) that it began with"
        )


def _moved(node: Any, old: str, new: str) -> Any:
    """Puts a run directory's new place into the paths of a resolved config."""
    if isinstance(node, dict):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, old, new) for value in node]
    if isinstance(node, str) and (node == old or node.startswith(f"{old}/")):
        return new + node[len(old) :]
    return node


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
