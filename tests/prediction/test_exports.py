from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import deepacc_d2
from deepacc_d2.prediction.exports import exported_karyograms
from deepacc_d2.prediction.inputs import list_images


@pytest.mark.parametrize(
    ("names", "skipped"),
    [
        (("X.A.tif", "X.K.tif"), {"X.K.tif": "X.A.tif"}),
        (("x.a.TIF", "X.k.jpg"), {"X.k.jpg": "x.a.TIF"}),
        (("0012_A.tif", "0012_K.tif", "0013_A.tif"), {"0012_K.tif": "0012_A.tif"}),
        (("0012A.tif", "0012K.tif"), {"0012K.tif": "0012A.tif"}),
        (("m1.meta.png", "m1.karyo.png"), {"m1.karyo.png": "m1.meta.png"}),
        (("m1.png", "m1-karyogram.png"), {"m1-karyogram.png": "m1.png"}),
        # No pair, or letters that number cells.
        (("X.K.tif", "Y.A.tif"), {}),
        (("12A.tif", "12B.tif", "12K.tif"), {}),
        (("break.tif", "brea.tif", "A.tif", "K.tif"), {}),
        (("p1/X.A.tif", "p2/X.K.tif"), {}),
    ],
)
def test_pairs(names: tuple[str, ...], skipped: dict[str, str]) -> None:
    found = exported_karyograms([Path(name) for name in names])
    assert {str(k): str(m) for k, m in found.items()} == skipped


def test_a_folder_is_listed_without_them_and_says_why(tmp_path: Path) -> None:
    for name in ("7.A.tif", "7.K.tif", "8.tif"):
        (tmp_path / name).touch()
    for images in (tmp_path, f"{tmp_path}/*.tif"):
        skipped: dict[Path, str] = {}
        found = list_images(images, "folder", skipped=skipped)
        assert [item.path.name for item in found] == ["7.A.tif", "8.tif"]
        assert list(skipped) == [tmp_path / "7.K.tif"]
        assert "karyogram of 7.A.tif" in skipped[tmp_path / "7.K.tif"]


def test_one_that_is_named_by_itself_is_taken(tmp_path: Path) -> None:
    for name in ("7.A.tif", "7.K.tif"):
        (tmp_path / name).touch()
    skipped: dict[Path, str] = {}
    found = list_images([tmp_path / "7.K.tif", tmp_path], skipped=skipped)
    assert [item.path.name for item in found] == ["7.K.tif", "7.A.tif"]
    assert skipped == {}


def test_the_python_face_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepacc_d2.prediction import api

    class Nobody:
        def cell(self, gray: object, **facts: object) -> object:
            return facts["name"]

    for name in ("7.A.tif", "7.K.tif"):
        (tmp_path / name).touch()
    monkeypatch.setattr(api, "load_predictor", lambda *_, **__: Nobody())
    monkeypatch.setattr(api, "read_image", lambda path: type("Read", (), {"gray": None}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert deepacc_d2.predict(tmp_path) == ["7.A"]
    assert any("karyogram of 7.A.tif" in str(warning.message) for warning in caught)
