"""Checkpoints of this project: reading them without running any code of theirs, and their models.

A checkpoint's ``deepacc_config`` describes its model by ``_target_`` nodes. Only model parts may be
built from it: a checkpoint can come from a stranger, and a ``_target_`` calls anything importable.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.registry import locate
from torch import nn

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.errors import ConfigError, DataError, UserError
from deepacc_d2.moved import with_present_names

TRUSTED_TARGETS = (
    *("deepacc_d2.modeling.", "deepacc_d2.losses."),
    *("detectron2.layers.", "detectron2.modeling."),
)
"""What a model node read from a checkpoint may build."""
AUGMENTATIONS = (
    *("deepacc_d2.images.transforms.", "deepacc_d2.data.augment."),
    "detectron2.data.transforms.",
)
"""What its nodes of augmentations may build besides."""
LATER_KEYS = {"center": "single", "center_share": 1.0}
"""Keys of the inference branch, and of a config's root, that older configs lack, and what the lack
of them means."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint that our training wrote, without running any code of it.

    Raises:
        DataError: no such file, cut short, or not one of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"checkpoint {path} does not exist: pass CKPT=<run>/checkpoints/best.ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise DataError(f"checkpoint {path} needs more memory than there is") from None
    except Exception as error:  # what is no checkpoint fails in every way there is
        raise DataError(f"checkpoint {path} {refusal(error)}") from error
    if not isinstance(content, dict) or not {"model", "deepacc_config"} <= content.keys():
        raise DataError(f"checkpoint {path} was not written by this project: no deepacc_config")
    if not content["deepacc_config"]:
        raise DataError(f"checkpoint {path} holds no config to build its model from")
    with content_of(path):
        return {**content, "deepacc_config": with_present_names(content["deepacc_config"])}


@contextmanager
def content_of(path: str | Path) -> Iterator[None]:
    """Makes one line of whatever breaks on the content of a model file.

    Settings and configs in it may be anything, since anybody can write one; that is found where
    they are used, as an error of any kind.

    Raises:
        DataError: names the file.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or "no reason given"
        raise DataError(
            f"checkpoint {path} holds what this version cannot use ({type(error).__name__}: "
            f"{reason}): use the version that its run.json names"
        ) from error


def refusal(error: BaseException) -> str:
    """Says in one line why torch does not read a file as weights alone, and what helps.

    Args:
        error: of ``torch.load(..., weights_only=True)``.
    """
    text = " ".join(str(error).split())
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if isinstance(error, pickle.UnpicklingError) and found:
        name = found[1]
        helps = (
            "save such numbers by float() or int(), or as tensors"
            if name.startswith("numpy.")
            else "save plain numbers, texts and tensors alone"
        )
        return f"holds {name} besides weights, which is not read from a file: {helps}"
    # torch's first sentences advise on trusting the file; what failed stands behind them.
    reason = re.split(r" (?:This is an internal|Check the documentation|Please )", text)[0]
    reason = reason.rpartition("WeightsUnpickler error: ")[2]
    if not isinstance(error, RuntimeError | pickle.UnpicklingError | OSError):
        reason = f"{type(error).__name__} {reason}".rstrip()
    return f"is damaged or not a checkpoint ({reason[:300]})"


def build_from_checkpoint(content: dict[str, Any], path: str | Path) -> nn.Module:
    """Builds the model that a checkpoint describes and gives it its weights.

    Raises:
        ConfigError: the config would call something other than a model part.
        DataError: weights and config do not belong together, it has other classes, or was written
            by a version with other parts.
    """
    with content_of(path):
        node = content["deepacc_config"]["model"]
        check_trusted(node)
        check_num_classes(node, path)
        try:
            _check_weights(node, content["model"], path)
            model = build(node)
        except (TypeError, ImportError) as error:
            raise DataError(
                f"checkpoint {path} describes a model that this version cannot build ({error}): "
                "use the version that its run.json names"
            ) from error
        if not isinstance(model, nn.Module):
            raise DataError(f"checkpoint {path} describes no model: its model is {node!r:.60}")
        return _with_weights(model, content["model"], path)


def _check_weights(node: Any, weights: Any, path: str | Path) -> None:
    """Refuses weights that are none, and a far larger model than there are weights for, unbuilt.

    A config of a few bytes can ask for more memory than there is.
    """
    with torch.device("meta"):
        plan = build(node)
    if isinstance(plan, nn.Module) and isinstance(weights, Mapping):
        odd = [
            name
            for name, value in weights.items()
            if isinstance(value, torch.Tensor)
            and (value.is_complex() or value.layout is not torch.strided)
        ]
        if odd:
            raise DataError(f"checkpoint {path} holds {odd[0]} as no plain numbers")
        held = sum(v.numel() for v in weights.values() if isinstance(v, torch.Tensor))
        needed = sum(value.numel() for value in plan.state_dict().values())
        if needed > 2 * held + 1_000_000:
            raise DataError(
                f"checkpoint {path} describes a model of {needed:,} numbers and holds {held:,}"
            )


def _with_weights(model: nn.Module, weights: Any, path: str | Path) -> nn.Module:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        detail = lines[min(1, len(lines) - 1)].strip()[:200]
        raise DataError(f"checkpoint {path} holds weights of another model: {detail}") from error
    return model


def with_later_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a plain config with :data:`LATER_KEYS` and the present names of moved classes.

    A checkpoint needs it not to be built; it makes configs of before and after comparable.
    """
    completed = {**(LATER_KEYS if "delta" in config else {}), **with_present_names(dict(config))}
    model = config.get("model") or {}
    heads = model.get("roi_heads") or {}
    predictor = heads.get("box_predictor") or {}
    branch = predictor.get("inference_branch")
    if branch:
        predictor = {**predictor, "inference_branch": {**LATER_KEYS, **branch}}
        completed["model"] = {**model, "roi_heads": {**heads, "box_predictor": predictor}}
    return completed


def build(node: Any) -> Any:
    """Builds what a resolved, plain node describes, from the leaves up, as Hydra would."""
    if isinstance(node, list):
        return [build(value) for value in node]
    if not isinstance(node, dict):
        return node
    options = {key: build(value) for key, value in node.items() if key != "_convert_"}
    target = options.pop("_target_", None)
    if target is None:
        return options
    try:
        called = locate(target)
    except Exception as error:  # Detectron2 raises a bare one
        raise ImportError(f"there is no {target}") from error
    return called(**options)


def check_num_classes(node: Any, path: str | Path) -> None:
    """Refuses a model node with other than 24 classes anywhere.

    Raises:
        DataError: names the count found.
    """
    if isinstance(node, dict):
        count = node.get("num_classes", NUM_CLASSES)
        if count != NUM_CLASSES:
            raise DataError(
                f"checkpoint {path} is of a model with {count} classes, not {NUM_CLASSES}"
            )
        for value in node.values():
            check_num_classes(value, path)


def targets(node: Any) -> Iterator[str]:
    """Yields every ``_target_`` in nested plain containers."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def check_trusted(node: Any, *, extra: tuple[str, ...] = ()) -> None:
    """Refuses a plain config that would call anything but model or augmentation classes.

    A dotted name may lead out of its package, through what a module there has imported: what counts
    is where the thing itself was defined.

    Raises:
        ConfigError: names the first target outside the trusted packages.
    """
    trusted = TRUSTED_TARGETS + extra
    for target in targets(node):
        if not target.startswith(trusted) or not _is_defined_in(target, trusted):
            raise ConfigError(
                f"the checkpoint's config wants to call {target!r}: not a model part, refused"
            )


def _is_defined_in(target: str, trusted: tuple[str, ...]) -> bool:
    """Whether a target is a class or function of these packages, or not there at all."""
    try:
        found = locate(target)
    except Exception:  # Detectron2 raises a bare one
        return True
    return callable(found) and f"{getattr(found, '__module__', '')}.".startswith(trusted)
