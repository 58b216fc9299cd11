from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

import deepacc_d2
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.prediction.record import to_record
from deepacc_d2.sole_use import sole_use
from deepacc_lightning import predict
from deepacc_lightning.core.config import compose_config, to_plain

SMALL = (
    *("pixel_mean=228", "pixel_std=45", "scale=lab", "data.root=unused", "out=unused"),
    *("scale.backbone.stem_channels=8", "scale.backbone.res2_channels=8"),
    *("scale.fpn.out_channels=16", "scale.roi.fc_dims=[16,16]"),
    *("scale.rpn.pre_nms_topk=[60,60]", "scale.rpn.post_nms_topk=[20,20]"),
    "experiment=siamese_gia",
)
QUICK = ("num_workers=0", "draw_workers=0", "accelerator=cpu", "karyogram=[png]")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cfg = to_plain(compose_config("train", SMALL))
    torch.manual_seed(5)
    weights = instantiate(cfg["model"]).state_dict()
    path = tmp_path_factory.mktemp("model") / "tiny.ckpt"
    # Random weights are sure of nothing: every proposal counts.
    selection = {"min_foreground": 0.0, "iou": 0.3, "max_chromosomes": 12}
    torch.save({"model": weights, "deepacc_config": cfg, "selection": selection}, path)
    return path


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    for case, name in (("p1", "a"), ("p1", "b"), ("p2", "c")):
        image = np.full((140, 180), 232, dtype=np.uint8)
        for _ in range(7):
            center = tuple(int(v) for v in rng.integers(25, 115, 2))
            cv2.ellipse(image, center, (16, 4), int(rng.integers(180)), 0, 360, 90, -1)
        (root / case).mkdir(exist_ok=True)
        cv2.imwrite(str(root / case / f"{name}.png"), image)
    return root


def config(checkpoint: Path, images: Path, out: Path, *more: str) -> DictConfig:
    paths = [f"ckpt={checkpoint}", f"images={images}", f"out={out}"]
    return compose_config("predict", [*paths, *QUICK, *more])


@pytest.fixture(scope="module")
def finished(checkpoint: Path, slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "job"
    result = predict.run(config(checkpoint, slides, out, "cases=folder"))
    assert result == {"cells": 3, "predicted": 3, "failed": 0}
    return out


def records(out: Path) -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text()) for p in sorted((out / "cells").glob("*.json"))}


def without_drawn(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Records without what only a drawn karyogram shows."""
    drawn = ("band_level", "outline", "rotation", "polarity", "doubtful_cut")
    for record in found.values():
        for each in (record, *record["chromosomes"]):
            for key in drawn:
                each.pop(key, None)
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_cell_has_its_files(finished: Path) -> None:
    for name in "abc":
        for folder in ("overlays", "karyograms"):
            picture = cv2.imread(str(finished / folder / f"{name}.png"))
            assert min(picture.shape[:2]) > 100, (folder, name)
    assert [row["cell"] for row in rows(finished / "cells.csv")] == ["a", "b", "c"]
    chromosomes = sum(len(record["chromosomes"]) for record in records(finished).values())
    assert len(rows(finished / "chromosomes.csv")) == chromosomes > 3
    assert not (finished / "errors.csv").exists()
    leftovers = [p for p in finished.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]
    assert leftovers == []


def test_every_case_has_a_page(finished: Path) -> None:
    cases = {row["cell"]: row["case"] for row in rows(finished / "cells.csv")}
    assert cases == {"a": "p1", "b": "p1", "c": "p2"}
    for case, cells in (("p1", 2), ("p2", 1)):
        record = json.loads((finished / "cases" / f"{case}.json").read_text())
        assert (record["case_id"], record["n_cells"]) == (case, cells)
        assert "diagnosis" in record["disclaimer"]
        assert (finished / "cases" / f"{case}.pdf").read_bytes().startswith(b"%PDF")


def test_the_python_face_gives_the_same(finished: Path, checkpoint: Path, slides: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a lane has; sums of other threads round otherwise
    try:
        cells = deepacc_d2.predict(slides, checkpoint=checkpoint, cases="folder", device="cpu")
    finally:
        torch.set_num_threads(threads)
    found = {cell.name: json.loads(json.dumps(to_record(cell))) for cell in cells}
    assert without_drawn(found) == without_drawn(records(finished))


def test_parts_are_the_whole(
    finished: Path, checkpoint: Path, slides: Path, tmp_path: Path
) -> None:
    found: dict[str, dict[str, Any]] = {}
    for part, cells in (("1/2", 2), ("2/2", 1)):  # p1 has two cells
        out = tmp_path / part[0]
        result = predict.run(config(checkpoint, slides, out, "cases=folder", f"part={part}"))
        assert result["cells"] == cells
        found |= records(out)
    assert found == records(finished)


def test_processes_draw_and_read_the_same(
    finished: Path, checkpoint: Path, slides: Path, tmp_path: Path
) -> None:
    more = ("cases=folder", "num_workers=1", "draw_workers=1")
    predict.run(config(checkpoint, slides, tmp_path / "job", *more))
    for path in sorted(finished.rglob("*")):
        if path.is_file():
            other = tmp_path / "job" / path.relative_to(finished)
            assert other.read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
def test_lanes_give_the_same_as_one_image_at_a_time(
    finished: Path, checkpoint: Path, slides: Path, tmp_path: Path
) -> None:
    images = tmp_path / "in"
    shutil.copytree(slides, images)
    (images / "p1" / "aa.png").write_bytes(b"no image")
    results = {}
    for lanes, workers in ((1, 0), (3, 2)):
        out = tmp_path / f"lanes{lanes}"
        more = ("cases=folder", f"lanes={lanes}", f"draw_workers={workers}")
        result = predict.run(config(checkpoint, images, out, *more))
        assert result == {"cells": 3, "predicted": 3, "failed": 1}
        files = [path for path in sorted(out.rglob("*")) if path.is_file()]
        results[lanes] = {path.relative_to(out): path.read_bytes() for path in files}
    assert results[1] == results[3]
    assert [n for n in results[1] if n.parent.name == "cells"] == [
        Path("cells") / f"{name}.json" for name in "abc"
    ]


def test_a_job_that_crashed_goes_on(
    finished: Path,
    checkpoint: Path,
    slides: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deepacc_lightning.jobs import predict_loop

    out, real = tmp_path / "job", predict_loop.predict_image

    def crash(predictor: Any, image: Any) -> Any:
        if image.name == "b":
            raise RuntimeError("a bug")
        return real(predictor, image)

    job = config(checkpoint, slides, out, "cases=folder", "lanes=3")
    with monkeypatch.context() as patch:
        patch.setattr(predict_loop, "predict_image", crash)
        with pytest.raises(RuntimeError, match="a bug"):
            predict.run(job)
    assert set(records(out)) == {"a"}
    assert predict.run(job) == {"cells": 3, "predicted": 2, "failed": 0}
    assert records(out) == records(finished)


def test_a_disk_that_is_full_at_the_end_is_one_line(
    finished: Path,
    checkpoint: Path,
    slides: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "job"
    job = config(checkpoint, slides, out, "cases=folder", "lanes=3")
    shutil.copytree(finished, out)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(predict, "finish_job", full)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
        predict.run(job)


def test_a_stopped_job_goes_on(
    finished: Path, checkpoint: Path, slides: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "job"
    first = config(checkpoint, slides / "p1", out, "cases=folder")
    predict.run(first)
    (out / "cells" / "b.json").unlink()
    marked = out / "cells" / "a.json"
    before = marked.stat().st_mtime_ns
    capsys.readouterr()
    result = predict.run(config(checkpoint, slides, out, "cases=folder"))
    assert result == {"cells": 3, "predicted": 2, "failed": 0}
    assert "1 of 3 images are done already" in capsys.readouterr().out
    assert marked.stat().st_mtime_ns == before
    assert records(out) == records(finished)
    assert predict.run(config(checkpoint, slides, out, "cases=folder"))["predicted"] == 0


def test_other_settings_are_not_mixed(
    finished: Path, checkpoint: Path, slides: Path, tmp_path: Path
) -> None:
    out = tmp_path / "job"
    predict.run(config(checkpoint, slides / "p2", out))
    with pytest.raises(ConfigError, match="results with another settings"):
        predict.run(config(checkpoint, slides / "p2", out, "prior_strength=0"))
    predict.run(config(checkpoint, slides / "p2", out, "prior_strength=0", "overwrite=true"))
    assert json.loads((out / "job.json").read_text())["settings"]["karyotype"][
        "prior_strength"
    ] in (0, 0.0)


def test_bad_files_are_reported_and_the_rest_goes_on(
    checkpoint: Path, slides: Path, tmp_path: Path, capsys: Any
) -> None:
    images = tmp_path / "in"
    images.mkdir()
    good = (slides / "p1" / "a.png").read_bytes()
    (images / "good.png").write_bytes(good)
    (images / "cut.png").write_bytes(good[: len(good) // 2])
    (images / "empty.tif").write_bytes(b"")
    (images / "text.jpg").write_text("no image")
    result = predict.run(config(checkpoint, images, tmp_path / "job"))
    assert result == {"cells": 1, "predicted": 1, "failed": 3}
    printed = capsys.readouterr()
    for name in ("cut.png", "empty.tif", "text.jpg"):
        assert (
            len([x for x in printed.out.splitlines() if x.startswith("error:") and name in x]) == 1
        )
    assert "3 of 4 images were left out" in printed.err
    errors = [Path(row["image"]).name for row in rows(tmp_path / "job" / "errors.csv")]
    assert errors == ["cut.png", "empty.tif", "text.jpg"]
    (images / "good.png").unlink()
    with pytest.raises(ConfigError, match="none of 3 images could be used"):
        predict.run(config(checkpoint, images, tmp_path / "other"))


def test_an_empty_field_is_a_result(checkpoint: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "empty.png"), np.full((300, 400), 200, dtype=np.uint8))
    job = config(checkpoint, tmp_path / "empty.png", tmp_path / "job", "min_foreground=1.0")
    assert predict.run(job)["cells"] == 1
    record = records(tmp_path / "job")["empty"]
    assert (record["karyotype"], record["chromosomes"], record["count"]) == ("", [], 0)
    assert (tmp_path / "job" / "overlays" / "empty.png").is_file()
    assert not (tmp_path / "job" / "karyograms" / "empty.png").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine=steam", "engine=steam: choose"),
        ("karyogram=[gif]", r"karyogram=\.gif: choose"),
        ("accelerator=gpu", "asks for a GPU"),
        ("ckpt=missing.ckpt", "missing.ckpt does not exist"),
        ("images=nowhere", "nowhere is not there"),
        ("min_foreground=7", "min_foreground=7.* is no share"),
        ("prior_strength=-1", "prior_strength"),
        ("precision=8", "precision=8: choose"),
    ],
)
def test_bad_options_leave_nothing_behind(
    checkpoint: Path, slides: Path, tmp_path: Path, override: str, message: str
) -> None:
    if override == "accelerator=gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=message):
        predict.run(config(checkpoint, slides, tmp_path / "job", override))
    assert not (tmp_path / "job").exists()


def test_ctrl_c_keeps_what_is_done(
    checkpoint: Path, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepacc_lightning.jobs import predict_loop

    written: list[str] = []
    real: Callable[..., str] = predict_loop.draw

    def draw(folder: Any, gray: Any, cell: Any, options: Any) -> str:
        if written:
            raise KeyboardInterrupt
        written.append(cell.name)
        return real(folder, gray, cell, options)

    monkeypatch.setattr(predict_loop, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        predict.run(config(checkpoint, slides, tmp_path / "job"))
    assert sorted(records(tmp_path / "job")) == written == ["a"]


@pytest.mark.usefixtures("prompt_ray")
def test_ray_gives_the_same(checkpoint: Path, slides: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("ray", reason="make setup EXTRAS=ray")
    pytest.importorskip("pyarrow", reason="make setup EXTRAS=ray")
    images = tmp_path / "in"
    shutil.copytree(slides, images)
    (images / "p2" / "bad.png").write_bytes(b"no image")
    options = ("cases=folder", "engine=ray", "ray.actors=1")
    result = predict.run(config(checkpoint, images, tmp_path / "job", *options))
    assert result == {"cells": 3, "predicted": 3, "failed": 1}
    assert "bad.png" in capsys.readouterr().out
    # An actor of one CPU computes with one thread, and sums of other threads round otherwise.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        predict.run(config(checkpoint, slides, tmp_path / "here", "cases=folder"))
    finally:
        torch.set_num_threads(threads)
    found, expected = records(tmp_path / "job"), records(tmp_path / "here")
    for name, record in expected.items():
        path = str(images / record["case"] / f"{name}.png")
        record["image"]["path"] = path
        assert found[name] == record
    assert (tmp_path / "job" / "karyograms" / "a.png").read_bytes() == (
        tmp_path / "here" / "karyograms" / "a.png"
    ).read_bytes()


def test_a_file_name_that_is_no_utf8_costs_one_line(
    checkpoint: Path, slides: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(slides / "p1", images)
    odd = os.fsdecode(b"caf\xe9.png")
    shutil.copy(images / "a.png", images / odd)
    result = predict.run(config(checkpoint, images, tmp_path / "out"))
    assert result == {"cells": 2, "predicted": 2, "failed": 1}
    (row,) = rows(tmp_path / "out" / "errors.csv")
    assert row["image"].endswith(r"caf\xe9.png")
    assert row["error"] == "its name is not in UTF-8: rename it"
    printed = capsys.readouterr().out
    assert printed.count("error:") == 1
    assert [r["cell"] for r in rows(tmp_path / "out" / "cells.csv")] == ["a", "b"]
    with pytest.raises(UserError, match=r"caf\\xe9\.png: its name is not in UTF-8: rename it"):
        deepacc_d2.predict(images / odd, checkpoint=checkpoint)


def test_an_exported_karyogram_is_skipped_and_a_rerun_follows_what_it_says(
    checkpoint: Path, slides: Path, tmp_path: Path, capsys: Any
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    shutil.copy(slides / "p1" / "a.png", images / "7.A.png")
    shutil.copy(slides / "p1" / "b.png", images / "7.K.png")
    result = predict.run(config(checkpoint, images, out, "cases=folder"))
    assert result == {"cells": 1, "predicted": 1, "failed": 0}
    said = [line for line in capsys.readouterr().out.splitlines() if "7.K.png" in line]
    assert len(said) == 1
    assert "karyogram of 7.A.png" in said[0]
    assert list(records(out)) == ["7.A"]
    assert [(row["image"], "karyogram" in row["error"]) for row in rows(out / "errors.csv")] == [
        (str(images / "7.K.png"), True)
    ]
    assert [p.name for p in (out / "cases").glob("*.pdf")] == ["images.pdf"]
    # Without cases there are none, nor pages of them.
    assert predict.run(config(checkpoint, images, out))["predicted"] == 0
    assert not (out / "cases").exists()
    assert [row["case"] for row in rows(out / "cells.csv")] == [""]


def test_a_second_job_in_one_folder_is_refused(
    checkpoint: Path, slides: Path, tmp_path: Path
) -> None:
    holding = threading.Event()
    ended = threading.Event()

    def hold() -> None:
        with sole_use(tmp_path / "out"):
            holding.set()
            ended.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    holding.wait(60)
    try:
        with pytest.raises(UserError, match=rf"out is in use by process {os.getpid()}"):
            predict.run(config(checkpoint, slides, tmp_path / "out"))
    finally:
        ended.set()
        other.join()
    assert not (tmp_path / "out").exists()
