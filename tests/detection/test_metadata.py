from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.detection.metadata import describe, dump, parse
from deepacc_d2.errors import ConfigError, DataError


@pytest.fixture
def description(checkpoint: Path) -> Any:
    content = read_checkpoint(checkpoint)
    return describe(content, checkpoint, size_divisibility=16, precision="fp32")


def test_what_a_runner_needs_is_passed_on(description: Any, checkpoint: Path) -> None:
    assert parse(dump(description), "a.onnx") == description
    assert description["preset"] == "siamese_gia"
    assert description["classes"][21:] == ["22", "X", "Y"]
    assert description["test_augmentations"][-1]["_target_"].startswith("deepacc_d2.images.")
    assert description["karyotype"] == {"temperature": 1.5}
    assert description["card"] == {"name": "tiny"}
    assert description["selection"] is None
    assert description["fingerprint"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert "\n" not in dump(description)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"a\.xml has a description of version 2, known is 1"),
        ({"classes": ["1"]}, r"a\.xml is of other classes"),
        ({"precision": "fp8"}, r"damaged description \(precision 'fp8'"),
        ({"size_divisibility": 0}, r"damaged description .* divisibility 0\)"),
        ({"size_divisibility": 10**9}, r"damaged description .* divisibility 1000000000\)"),
    ],
)
def test_descriptions_of_others_are_refused(
    change: dict[str, Any], message: str, description: Any
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse(json.dumps({**description, **change}), "a.xml")
    assert "\n" not in str(caught.value)


def test_no_description_is_refused(description: Any) -> None:
    with pytest.raises(DataError, match=r"a\.xml was not written by `make export`"):
        parse(None, "a.xml")
    for text in ("{", "[]", "3", "{}"):
        with pytest.raises(DataError, match=r"a\.xml has a damaged description"):
            parse(text, "a.xml")
    del description["preset"]
    with pytest.raises(DataError, match=r"a description without preset"):
        parse(json.dumps(description), "a.xml")


def test_what_cannot_be_described(checkpoint: Path, description: Any) -> None:
    content = read_checkpoint(checkpoint)
    with pytest.raises(ConfigError, match=r"precision 'fp64' is unknown"):
        describe(content, checkpoint, size_divisibility=16, precision="fp64")
    bare = {**content, "deepacc_config": {"preset": "sep"}}
    with pytest.raises(DataError, match=r"no scale\.test_augmentations"):
        describe(bare, checkpoint, size_divisibility=16, precision="fp32")
    with pytest.raises(DataError, match=r"settings cannot be exported"):
        dump({**description, "card": {"data": b"raw"}})
