"""``import deepacc_d2``: what is there, typed and loaded late."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import deepacc_d2
from deepacc_d2.cell import Cell, Chromosome
from deepacc_d2.errors import ConfigError
from deepacc_d2.images.read import read_image
from deepacc_d2.prediction import api
from deepacc_d2.prediction.predictor import Predictor, load_predictor

ROOT = Path(__file__).parents[1]


def test_the_import_loads_nothing_else() -> None:
    code = (
        f"import sys, json; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); "
        "import deepacc_d2; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["__future__", "deepacc_d2"]


def test_names_are_those_of_their_modules() -> None:
    assert deepacc_d2.Cell is Cell
    assert deepacc_d2.Chromosome is Chromosome
    assert deepacc_d2.read_image is read_image
    assert deepacc_d2.load_predictor is load_predictor
    assert set(deepacc_d2.__all__) <= set(dir(deepacc_d2))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        deepacc_d2.nothing  # noqa: B018


def test_arguments_are_named_and_those_of_the_predictor() -> None:
    own = inspect.signature(deepacc_d2.predict).parameters
    inner = inspect.signature(load_predictor).parameters
    assert {name: p.default for name, p in own.items() if name in inner} == {
        name: p.default for name, p in inner.items()
    }
    assert set(own) - set(inner) == {"images", "cases"}
    assert own.keys() == inspect.signature(api.predict).parameters.keys()
    assert not any(p.kind is p.VAR_KEYWORD for p in own.values())


def test_options_of_a_predictor_that_is_there_are_refused() -> None:
    predictor = object.__new__(Predictor)
    with pytest.raises(ConfigError, match="normalize is for a predictor yet to be made"):
        deepacc_d2.predict("a.tif", checkpoint=predictor, normalize=False)
