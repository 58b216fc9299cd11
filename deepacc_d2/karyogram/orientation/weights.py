"""The polarity network's file: weights in half precision, and a card that says what they are."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from deepacc_d2.errors import DataError
from deepacc_d2.files import whole_file
from deepacc_d2.karyogram.orientation.find import SHIPPED
from deepacc_d2.karyogram.orientation.network import PolarityNet


def save_network(path: Path, network: PolarityNet, card: Mapping[str, Any]) -> None:
    """Writes a network.

    Args:
        path: the file.
        network: of the default size.
        card: plain containers, numbers and texts.
    """
    weights = {
        name: value.half() if value.ndim > 1 else value.float()
        for name, value in network.state_dict().items()
    }
    with whole_file(path) as temporary:
        torch.save({"model": weights, "card": dict(card)}, temporary)


def load_network(path: Path) -> tuple[PolarityNet, dict[str, Any]]:
    """Reads a network, in evaluation mode, and its card.

    Raises:
        DataError: the file is missing, damaged or of another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        network = PolarityNet()
        # Networks written before there was an extent were shown whole strips.
        weights = {"extent": network.extent, **content["model"]}
        network.load_state_dict({k: v.float() for k, v in weights.items()})
    except OSError as error:
        raise DataError(f"polarity network {path} cannot be read ({error.strerror})") from None
    except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError):
        raise DataError(f"{path} is no polarity network: train one with make polarity") from None
    return network.eval(), dict(content.get("card", {}))


@lru_cache(maxsize=1)
def shipped_network() -> PolarityNet | None:
    """Returns the included network, None where it is missing."""
    return load_network(SHIPPED)[0] if SHIPPED.is_file() else None
