"""Weights to start a training from: checkpoints of this project, and any of Detectron2's."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from deepacc_d2.checkpoint import read_checkpoint, refusal
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.modeling.cached import trunk_weights

MULTIARRAY = ("_reconstruct", "scalar")
# A deeper trunk's or a mask head's file has hundreds of weights that a model has no place for.
MAX_UNUSED_LINES = 12


class _NumpyUnpickler(pickle.Unpickler):
    """Unpickles arrays and containers only; anything else a pickle could call is refused."""

    allowed = frozenset(
        {
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            *((f"numpy.{core}.multiarray", n) for core in ("core", "_core") for n in MULTIARRAY),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which is refused")
        return super().find_class(module, name)


class InitialWeights(DetectionCheckpointer):
    """Detectron2's checkpointer for files of strangers, which keeps what did not fit.

    Model-zoo files ending in ``.pkl`` are plain pickles, which can run code when they are read:
    they pass a restricted unpickler first. Others go through ``torch.load(weights_only=True)``.

    The three methods are what fvcore calls to read a file and to tell what did not fit; it has no
    public way to change either.
    """

    incompatible: Any = None

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            with Path(filename).open("rb") as file:
                _NumpyUnpickler(file, encoding="latin1").load()
        content: dict[str, Any] = super()._load_file(filename)
        return content

    def _torch_load(self, f: str) -> Any:
        return torch.load(f, map_location="cpu", weights_only=True)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        self.incompatible = incompatible


def load_initial_weights(model: nn.Module, path: str) -> list[str]:
    """Loads what fits of a checkpoint into a model: ours, or Detectron2's ``.pkl``/``.pth``.

    Detectron2's checkpointer matches names (MSRA's and torchvision's too), resolves its hub's
    ``detectron2://`` addresses and skips what has another shape.

    Returns:
        One line for each weight that was not loaded, with the reason: those of the model that the
        file lacks or has in another shape, then those of the file that the model has no place for
        (the first few, and how many more).

    Raises:
        DataError: the file cannot be had or read.
        ConfigError: nothing in it fits the model.
    """
    checkpointer = InitialWeights(model)
    for name in ("fvcore.common.checkpoint", "detectron2.checkpoint.c2_model_loading"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        checkpointer.load(path)
    except AssertionError as error:
        raise DataError(f"init_weights {path} does not exist") from error
    except Exception as error:  # downloads and unpickling fail in many ways
        raise DataError(f"init_weights {path} {_why_not(path, error)}") from error
    incompatible = checkpointer.incompatible
    # Old files lack this counter of batch norm; torch fills it in and does not call it missing.
    total = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
    # The checkpointer drops what has another shape, and then misses it as well.
    differing = {key for key, _, _ in incompatible.incorrect_shapes}
    missing = [key for key in incompatible.missing_keys if key in total - differing]
    shapes = [
        f"{key}: shape {a} in the file, {b} here" for key, a, b in incompatible.incorrect_shapes
    ]
    if len(missing) + len(shapes) >= len(total):
        raise ConfigError(f"init_weights {path} has no weight that fits this model")
    lines = [f"{key}: not in the file" for key in missing] + shapes
    return lines + _without_a_place(sorted(incompatible.unexpected_keys))


def _why_not(path: str, error: BaseException) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if Path(path).is_file():  # it is here: to download it again would not help
        if "Weights only load failed" in reason:
            reason = f"it {refusal(error)}"
        return (
            f"cannot be loaded ({reason[:300]}): pass another by init_weights=, or null for random "
            "weights"
        )
    return (
        f"cannot be loaded ({reason[:300]}): download it and pass init_weights=/path/to/file, or "
        "init_weights=null for random weights"
    )


def _without_a_place(keys: list[str]) -> list[str]:
    shown = keys if len(keys) <= MAX_UNUSED_LINES else keys[: MAX_UNUSED_LINES - 1]
    lines = [f"{key}: only in the file, no place for it here" for key in shown]
    if len(keys) > len(shown):
        lines.append(f"{len(keys) - len(shown)} more: only in the file, no place for them here")
    return lines


def load_trunk(model: nn.Module, path: str | Path) -> None:
    """Gives a detector the backbone, FPN and RPN of a checkpoint of this project, with any heads.

    Raises:
        DataError: the checkpoint cannot be read, or its trunk is another network.
    """
    weights = trunk_weights(read_checkpoint(path)["model"])
    own = trunk_weights(model.state_dict())
    differing = sorted(
        key
        for key in own.keys() | weights.keys()
        if key not in own or key not in weights or own[key].shape != weights[key].shape
    )
    if differing or not own:
        what = f"{differing[0]} and {len(differing) - 1} more differ" if differing else "no RPN"
        raise DataError(
            f"the trunk of checkpoint {path} is not this model's ({what}): pass the SCALE and ARGS "
            "that it was trained with"
        )
    model.load_state_dict(weights, strict=False)
