"""What the settings of the method may be: one list for its classes, yacs keys and Hydra's config.

The names are those of the classes' arguments; see :mod:`deepacc_d2.modeling` for what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from deepacc_d2.errors import ConfigError

Anchor = Literal["labelled", "predicted"]
ANCHORS: tuple[Anchor, ...] = ("labelled", "predicted")
Center = Literal["single", "pair"]
CENTERS: tuple[Center, ...] = ("single", "pair")


@dataclass(frozen=True)
class Setting:
    """One setting: what it may be, in words and as a test of a number or a choice."""

    rule: str
    allows: Callable[[Any], bool]


def _number(rule: str, allows: Callable[[float], bool]) -> Setting:
    def test(value: Any) -> bool:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and allows(float(value))

    return Setting(rule, test)


def _choice(*choices: str) -> Setting:
    return Setting(f"choose {' or '.join(choices)}", lambda value: value in choices)


_WEIGHT = _number("a loss weight must be a number that is not negative", lambda w: w >= 0)
SETTINGS: dict[str, Setting] = {
    "alpha": _WEIGHT,
    "beta": _WEIGHT,
    "gamma": _WEIGHT,
    "m": _number("the angular margin must be in [0, pi) radians", lambda m: 0 <= m < math.pi),
    "s": _number("the scale of the cosines must be greater than 0", lambda s: s > 0),
    "delta": _number(
        "the least score of a local center must be in [0, 1]", lambda delta: 0 <= delta <= 1
    ),
    "center": _choice(*CENTERS),
    "center_share": _number(
        "the share of the image's own part in a center must be in [0, 1]",
        lambda share: 0 <= share <= 1,
    ),
    "anchor": _choice(*ANCHORS),
}


def check_setting(name: str, value: Any, *, key: str = "") -> None:
    """Checks one setting.

    Args:
        name: of :data:`SETTINGS`.
        value: what it is given.
        key: what the user calls it, where that is not its name.

    Raises:
        ConfigError: it may not be that; the message begins with the key.
    """
    if not SETTINGS[name].allows(value):
        raise ConfigError(f"{key or name}={value!r}: {SETTINGS[name].rule}")


def check_settings(**values: Any) -> None:
    """Checks several settings by their names.

    Raises:
        ConfigError: see :func:`check_setting`.
    """
    for name, value in values.items():
        check_setting(name, value)


def check_shares(where: str = "", /, **values: float) -> None:
    """Refuses values that are no shares, whoever they belong to.

    Raises:
        ConfigError: names the first one outside [0, 1], after ``where``.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{where}{name}={value} is no share: give 0 to 1")


def check_branches(margin: bool, inference: bool, gia: bool) -> None:
    """Checks which parts are on.

    Raises:
        ConfigError: a part that reads the margin branch's scores is on without it.
    """
    needing = [n for n, on in (("inference_branch", inference), ("gia", gia)) if on and not margin]
    if needing:
        raise ConfigError(
            f"{' and '.join(needing)} without margin_branch: turn margin_branch on, or set "
            f"{' and '.join(f'{name}=null' for name in needing)}"
        )
