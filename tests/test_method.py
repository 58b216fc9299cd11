from __future__ import annotations

import math

import numpy as np
import pytest

from deepacc_d2.errors import ConfigError
from deepacc_d2.method import SETTINGS, check_setting, check_settings
from deepacc_d2.modeling.config import SETTINGS as YACS
from deepacc_lightning.core.method_check import NODES

GOOD = {
    **{"alpha": (0, 0.1, 5), "beta": (0.0,), "gamma": (np.float32(0.1),)},
    **{"m": (0, 0.25, 3.14), "s": (1e-3, 64), "delta": (0, 0.5, 1)},
    **{"center": ("single", "pair"), "center_share": (0, 1), "anchor": ("labelled", "predicted")},
}
BAD = {
    **dict.fromkeys(("alpha", "beta", "gamma"), (-1e-9, math.inf, math.nan, True, "much", None)),
    **{"m": (-0.1, math.pi, math.nan), "s": (0, -1, math.inf), "delta": (-0.1, 1.1, math.nan)},
    **{"center": ("trio", None, 1), "center_share": (-0.1, 1.1), "anchor": ("nearest",)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_ranges_and_choices(name: str) -> None:
    check_settings(**{name: GOOD[name][-1]})
    for value in GOOD[name]:
        check_setting(name, value)
    for value in BAD[name]:
        with pytest.raises(ConfigError) as error:
            check_setting(name, value, key="MODEL.KEY")
        assert str(error.value).startswith(f"MODEL.KEY={value!r}: ")


def test_every_face_checks_every_setting() -> None:
    assert set(YACS) == set(SETTINGS)
    assert set(NODES.values()) == set(SETTINGS)
