"""The table, the groups and the differences against pandas and plain arithmetic."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepacc_d2.errors import ConfigError
from deepacc_d2.evaluation.comparison.result import Comparison, build_comparison, to_dict
from deepacc_d2.evaluation.comparison.runs import LeftOut, read_runs
from deepacc_d2.evaluation.comparison.text import format_comparison, table_csv

MakeRun = Callable[..., Path]
LEVELS = {
    ("sep", 0): 60.0,
    ("sep", 1): 62.0,
    ("sep", 2): 61.5,
    ("aam", 0): 64.0,
    ("aam", 1): 63.0,
    ("aam", 3): 70.0,
    ("siamese_gia", 7): 66.0,
}


@pytest.fixture
def compared(make_run: MakeRun) -> Callable[..., Comparison]:
    def build(**options: object) -> Comparison:
        paths = [
            make_run(f"{preset}/{seed}", preset=preset, seed=seed, level=level)
            for (preset, seed), level in LEVELS.items()
        ]
        return build_comparison(read_runs(paths)[0], **options)  # type: ignore[arg-type]

    return build


def test_the_table_holds_what_the_runs_left(compared: Callable[..., Comparison]) -> None:
    table = compared().table
    assert list(table.columns[:3]) == ["run", "preset", "seed"]
    assert table["run"].tolist() == [f"{p}/{s}" for p, s in LEVELS]
    assert table["val_map50"].tolist() == [level + 1 for level in LEVELS.values()]
    assert table["test_aer"].tolist() == [110 - level for level in LEVELS.values()]
    assert table["best_epoch"].tolist() == [3.0] * 7  # counted from 1
    seconds = [10 + level / 100 for level in LEVELS.values()]
    assert table["images_per_second"].tolist() == pytest.approx([160 / s for s in seconds])
    assert "data" not in table
    assert "device" not in table


def test_groups_are_those_of_pandas(compared: Callable[..., Comparison]) -> None:
    comparison = compared()
    expected = comparison.table.groupby("preset")["test_map50"].agg(["mean", "std", "count"])
    assert [g.label for g in comparison.groups] == [
        "preset=sep",
        "preset=aam",
        "preset=siamese_gia",
    ]
    for group in comparison.groups:
        spread = group.metrics["test_map50"]
        row = expected.loc[group.keys["preset"]]
        assert spread.mean == pytest.approx(row["mean"])
        assert spread.sd == pytest.approx(row["std"], nan_ok=True)
        assert spread.n == row["count"]


def test_differences_pair_seeds_where_they_pair(compared: Callable[..., Comparison]) -> None:
    comparison = compared()
    assert comparison.reference == "preset=sep"
    sep, aam, gia = comparison.groups
    assert not sep.differences
    paired = aam.differences["test_map50"]
    assert (paired.value, paired.pairs) == (pytest.approx((4.0 + 1.0) / 2), 2)
    assert paired.sd == pytest.approx(np.std([4.0, 1.0], ddof=1))
    lone = gia.differences["test_aer"]
    assert lone.value == pytest.approx(61.1666667 - 66.0)
    assert lone.pairs == 0
    assert math.isnan(lone.sd)


def test_groups_without_common_seeds_add_their_variances(make_run: MakeRun) -> None:
    a, b = [60.0, 62.0, 67.0], [50.0, 51.0]
    paths = [make_run(f"a{s}", preset="sep", seed=s, level=v) for s, v in enumerate(a)]
    paths += [make_run(f"b{s}", preset="aam", seed=s + 9, level=v) for s, v in enumerate(b)]
    found = build_comparison(read_runs(paths)[0]).groups[1].differences["test_map50"]
    assert (found.value, found.pairs) == (pytest.approx(50.5 - 63.0), 0)
    assert found.sd == pytest.approx(math.sqrt(np.var(a, ddof=1) + np.var(b, ddof=1)))


def test_runs_of_one_seed_in_a_group_are_averaged_before_pairing(make_run: MakeRun) -> None:
    paths = [
        make_run(f"{preset}{alpha}{seed}", preset=preset, alpha=alpha, seed=seed, level=level)
        for preset, alpha, seed, level in (
            *(("sep", 0.1, 0, 60.0), ("sep", 0.2, 0, 62.0), ("sep", 0.1, 1, 65.0)),
            *(("aam", 0.1, 0, 63.0), ("aam", 0.2, 0, 65.0), ("aam", 0.1, 1, 70.0)),
        )
    ]
    comparison = build_comparison(read_runs(paths)[0], by=["preset"])
    found = comparison.groups[1].differences["test_map50"]
    assert (found.value, found.pairs) == (pytest.approx((3.0 + 5.0) / 2), 2)
    assert comparison.groups[0].mixed == ("alpha",)
    assert any("Groups mix runs that differ in alpha" in note for note in comparison.notes)


@pytest.mark.parametrize("reference", ["aam", "preset=aam"])
def test_a_reference_is_named_by_value_or_label(
    compared: Callable[..., Comparison], reference: str
) -> None:
    comparison = compared(reference=reference)
    assert comparison.reference == "preset=aam"
    assert comparison.groups[0].differences["test_map50"].value == pytest.approx(-2.5)


def test_without_sep_the_first_group_is_the_reference(make_run: MakeRun) -> None:
    paths = [make_run(f"{a}", alpha=a) for a in (0.5, 0.1, 0.2)]
    comparison = build_comparison(read_runs(paths)[0])
    assert [g.label for g in comparison.groups] == ["alpha=0.1", "alpha=0.2", "alpha=0.5"]
    assert comparison.reference == "alpha=0.1"


def test_unknown_names_get_a_line(compared: Callable[..., Comparison], make_run: MakeRun) -> None:
    with pytest.raises(ConfigError, match=r"REF=nope is no group: there is preset=sep; preset=aam"):
        compared(reference="nope")
    paths = [make_run(f"m{m}", preset="sep", m=m) for m in (0.1, 0.2)]
    with pytest.raises(ConfigError, match=r"REF=m is no group: there is m=0\.1; m=0\.2"):
        build_comparison(read_runs(paths)[0], reference="m")
    with pytest.raises(ConfigError, match=r"REF=sep is several groups"):
        build_comparison(read_runs(paths)[0], by=["preset", "m"], reference="sep")


def test_one_run_is_shown_with_a_note(make_run: MakeRun) -> None:
    comparison = build_comparison(read_runs([make_run("a")])[0])
    assert comparison.reference is None
    assert comparison.notes == ["Only one run: there is nothing to compare it with."]
    assert "61.00" in format_comparison(comparison)


def test_runs_on_other_data_splits_or_scales_get_a_loud_note(make_run: MakeRun) -> None:
    data = {"name": "other", "root": "/o", "fingerprint": "e" * 64}
    paths = [
        make_run("a"),
        make_run("b", facts={"data": data, "git": {"revision": "b" * 40, "dirty": True}}),
        make_run("c", **{"scale.name": "paper", "data.max_val_images": 5}),
    ]
    comparison = build_comparison(read_runs(paths)[0])
    text = " ".join(comparison.notes)
    for words in ("different data sets (by fingerprint): ffffffffffff, eeeeeeeeeeee", "scales"):
        assert words in text
    assert "parts of the validation split (data.max_val_images): None, 5" in text
    assert "2 revisions" in text
    assert comparison.table["data"].tolist() == ["tiny", "other", "tiny"]


def test_groups_of_many_settings_have_short_and_different_names(make_run: MakeRun) -> None:
    own = {"m": 0.5, "trainer.precision": "16", "optim.optimizer.lr": 0.1}
    paths = [
        make_run(f"{n}", alpha=0.1 * (n > 0), **(own if n else {}), **{"scale.image_size": n})
        for n in range(3)
    ]
    comparison = build_comparison(read_runs(paths)[0])
    assert len(comparison.settings.parameters) == 5
    labels = [group.label for group in comparison.groups]
    assert labels[1:] == [labels[1], f"{labels[1]} #2"]
    assert labels[1].endswith(" …")
    assert "alpha, m, lr and precision always vary together" in " ".join(comparison.notes)


def test_csv_and_json_agree_and_hold_plain_numbers(compared: Callable[..., Comparison]) -> None:
    comparison = compared()
    content = to_dict(comparison)
    frame = pd.DataFrame(content["runs"])[list(comparison.table.columns)]
    pd.testing.assert_frame_equal(
        frame, comparison.table, check_dtype=False, check_column_type=False
    )
    gia = content["groups"][2]
    assert gia["metrics"]["val_map50"] == {"n": 1, "mean": 67.0, "sd": None, "values": [67.0]}
    assert gia["runs"] == ["siamese_gia/7"]
    assert content["varying"] == {"preset": "preset", "seed": "seed"}


def test_the_text_lists_runs_groups_differences_and_what_is_left_out(
    compared: Callable[..., Comparison],
) -> None:
    left_out = [LeftOut(Path("/x/bad"), "bad", "failed", "out of memory")]
    text = format_comparison(compared(left_out=left_out))
    assert "61.17 +- 1.04" in text
    assert "+2.50 +- 2.12*" in text
    line = next(line for line in text.splitlines() if line.startswith("bad "))
    assert line.split(maxsplit=2) == ["bad", "failed", "out of memory"]


def test_an_undefined_metric_is_left_empty(make_run: MakeRun) -> None:
    path = make_run("a", test=False, facts={"status": "finished", "train_seconds": None})
    comparison = build_comparison(read_runs([path, make_run("b", alpha=0.5)])[0])
    assert math.isnan(comparison.table["test_map50"].iloc[0])
    assert math.isnan(comparison.table["images_per_second"].iloc[0])
    assert to_dict(comparison)["runs"][0]["test_map50"] is None
    spread = comparison.groups[0].metrics["test_map50"]
    assert (spread.n, math.isnan(spread.mean)) == (0, True)
    assert math.isnan(comparison.groups[1].differences["test_map50"].value)


def test_a_name_that_is_a_formula_is_none_in_the_table(make_run: MakeRun) -> None:
    formula = "=HYPERLINK(1)"
    runs, left_out = read_runs([make_run(formula), make_run("-b", seed=1)])
    text = table_csv(build_comparison(runs, left_out))
    fields = [field for row in csv.reader(io.StringIO(text)) for field in row]
    assert any(formula in field for field in fields)
    for field in fields:
        if field.startswith(("=", "+", "@", "-")):
            float(field)
