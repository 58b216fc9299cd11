from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deepacc_d2.errors import ConfigError
from deepacc_d2.prediction.inputs import Input
from deepacc_d2.prediction.parts import part_of


def images(cases: list[str | None]) -> list[Input]:
    return [Input(Path(f"{n}.png"), f"cell{n}", case) for n, case in enumerate(cases)]


def all_parts(inputs: list[Input], count: int) -> list[list[Input]]:
    return [part_of(inputs, f"{n}/{count}") for n in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_each_image_is_in_one_part_and_each_case_in_one(count: int) -> None:
    rng = np.random.default_rng(count)
    cases = [f"case{n}" if n < 30 else None for n in rng.integers(0, 40, 300)]
    inputs = images(cases)
    parts = all_parts(inputs, count)
    assert sorted(item.name for part in parts for item in part) == sorted(i.name for i in inputs)
    homes = Counter(case for part in parts for case in {i.case_id for i in part} - {None})
    assert set(homes.values()) == {1}
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1  # single images fill up what cases leave
    order = {item.name: n for n, item in enumerate(inputs)}
    for part in parts:
        assert [order[i.name] for i in part] == sorted(order[i.name] for i in part)


def test_parts_differ_by_at_most_the_largest_case() -> None:
    inputs = images([f"case{n % 11}" for n in range(200)])
    sizes = [len(part) for part in all_parts(inputs, 4)]
    assert max(sizes) - min(sizes) <= 200 // 11 + 1


def test_no_part_is_everything() -> None:
    inputs = images([None, "a", "b"])
    assert part_of(inputs, None) == inputs


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1.5/3", ""])
def test_what_is_no_part_is_named(part: str) -> None:
    with pytest.raises(ConfigError, match=r"part=.*: expected such as 3/100"):
        part_of(images([None] * 5), part)


def test_more_parts_than_cases() -> None:
    with pytest.raises(ConfigError, match="part=1/3: there are only 2 cases, take fewer parts"):
        part_of(images(["a", "a", "b"]), "1/3")
    with pytest.raises(ConfigError, match="there are only 3 images"):
        part_of(images([None] * 3), "2/4")
