from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepacc_d2.data.splits import parse_ratios, shared_cases, split_by_case, split_officially
from deepacc_d2.errors import ConfigError, DataError


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=10, max_size=60),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_cases_never_part_and_counts_follow_the_ratios(sizes, seed, data):
    cases = [f"c{n}" for n, size in enumerate(sizes) for _ in range(size)]
    shuffled = data.draw(st.permutations(cases))
    splits = split_by_case(shuffled, (0.6, 0.2, 0.2), seed)
    assert shared_cases(splits, shuffled) == {}
    counts = Counter(splits)
    for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        assert abs(counts[split] - share * len(cases)) < max(sizes)
    # the order in which images come is no part of the result
    expected = dict(zip(cases, split_by_case(cases, (0.6, 0.2, 0.2), seed), strict=True))
    assert dict(zip(shuffled, splits, strict=True)) == expected


def test_seed_changes_the_split_and_repeats_it():
    cases = [f"c{n // 3}" for n in range(90)]
    first = split_by_case(cases, seed=0)
    assert first == split_by_case(cases, seed=0)
    assert first != split_by_case(cases, seed=1)
    assert Counter(first) == {"train": 54, "val": 18, "test": 18}


def test_membership_is_pinned():
    """A published split must not change with a later version."""
    splits = split_by_case([str(n) for n in range(10)], seed=0)
    found = {s: [n for n, own in enumerate(splits) if own == s] for s in ("train", "val", "test")}
    assert found == {"train": [0, 2, 3, 4, 6, 7], "val": [5, 8], "test": [1, 9]}


def test_share_of_zero_stays_empty():
    assert set(split_by_case(["a", "b", "c"], (1, 0, 0))) == {"train"}


def test_too_few_cases_are_refused():
    with pytest.raises(DataError, match=r"2 case\(s\) cannot fill 3 case-disjoint splits"):
        split_by_case(["a", "a", "b"])


def test_official_lists_stay_and_val_is_cut_from_train_by_case():
    official = ["train"] * 40 + ["test"] * 10
    cases = [f"c{n // 2}" for n in range(50)]
    splits = split_officially(official, cases, (0.6, 0.2, 0.2), seed=0)
    assert splits[40:] == ["test"] * 10
    assert Counter(splits[:40]) == {"train": 30, "val": 10}
    assert shared_cases(splits, cases) == {}


def test_official_validation_part_is_kept():
    official = ["train", "val", "train", "test"]
    assert split_officially(official, list("abcd"), (0.6, 0.2, 0.2)) == official


def test_shared_cases_are_named_with_their_splits():
    assert shared_cases(["test", "train", "val"], ["a", "a", "b"]) == {"a": ["train", "test"]}


@pytest.mark.parametrize("text", ["3:1", "a:b:c", "0:1:1", "3:-1:1", "", "inf:1:1", "nan:1:1"])
def test_impossible_ratios_are_refused(text):
    with pytest.raises(ConfigError, match="expected train:val:test such as 3:1:1"):
        parse_ratios(text)


def test_ratios_sum_to_one():
    assert parse_ratios("3:1:1") == pytest.approx((0.6, 0.2, 0.2))
