"""The ablation end to end at tiny size: both protocols, continuing, sharing work, bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock

from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning import ablation, evaluate
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.jobs.job import Job, first_difference
from tests.lightning.programs import Programs

PRESETS = ["sep", "siamese_gia"]
SMALL = [
    f"ablation.presets=[{','.join(PRESETS)}]",
    "ablation.seeds=2",
    "ablation.resamples=20",
    "heads.max_epochs=1",
    "heads.check_val_every_n_epoch=1",
    "heads.batch_size=2",
    "heads.views=[none,horizontal]",
    # A model of one epoch is sure of nothing, and nothing tests nothing.
    "model.roi_heads.box_predictor.test_score_thresh=0.0",
]


@pytest.fixture(scope="module")
def heads_overrides(shared_overrides: list[str]) -> list[str]:
    return [*shared_overrides, *SMALL]


@pytest.fixture(scope="module")
def finished(heads_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation") / "out"
    ablation.run([*heads_overrides, f"out={out}"])
    return out


def test_heads_leaves_a_run_for_each_preset_and_seed_and_the_report(finished: Path) -> None:
    for preset in PRESETS:
        for seed in (0, 1):
            facts = json.loads((finished / preset / f"seed{seed}" / "run.json").read_text())
            assert (facts["preset"], facts["seed"], facts["steps"]) == (preset, seed, 3)
    names = {path.name for path in (finished / "report").iterdir()}
    assert {"metrics.md", "metrics.json", "metrics.csv", "metrics.png", "confusions.md"} <= names
    centers = (finished / "report" / "centers.md").read_text()
    assert "`siamese_gia` | 0.5" in centers
    assert "`sep`" not in centers  # it has no margin branch
    table = json.loads((finished / "report" / "metrics.json").read_text())
    assert list(table["presets"]) == PRESETS


def test_every_job_shares_the_trunk_and_has_heads_of_its_own(finished: Path) -> None:
    trunk = torch.load(finished / "trunk" / "checkpoints" / "best.ckpt", weights_only=True)["model"]
    heads = []
    for preset, seed in (("sep", 0), ("sep", 1), ("siamese_gia", 0)):
        path = finished / preset / f"seed{seed}" / "checkpoints" / "best.ckpt"
        weights = torch.load(path, weights_only=True)["model"]
        for name, value in trunk.items():
            if not name.startswith("roi_heads."):
                assert torch.equal(weights[name], value), name
        heads.append(weights["roi_heads.box_head.classification.fc1.weight"])
    assert not torch.equal(heads[0], heads[1])


def test_evaluating_a_jobs_checkpoint_on_images_gives_what_the_cache_gave(
    finished: Path, tiny_data: Path, tmp_path: Path
) -> None:
    run = finished / "siamese_gia" / "seed0"
    overrides = [f"ckpt={run / 'checkpoints' / 'best.ckpt'}", "data=coco", "num_workers=0"]
    overrides += [f"data.root={tiny_data}", f"out={tmp_path / 'evaluation'}", "view=test"]
    evaluate.run(compose_config("evaluate", overrides))
    for name in ("predictions.json", "predictions_top1.json"):
        ours = json.loads((tmp_path / "evaluation" / name).read_text())
        theirs = json.loads((run / "test" / name).read_text())
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)
            assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-2)


def stamps(folder: Path) -> dict[Path, int]:
    names = ("run.json", "best.ckpt", "maps.npy")
    return {p: p.stat().st_mtime_ns for p in folder.glob("**/*") if p.name in names}


def test_a_second_run_does_nothing_again_nor_in_a_folder_of_an_earlier_version(
    finished: Path, heads_overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished / "sep" / "seed0"
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["ablation"] = {"protocol": "heads", "worker": 1.5}
    del config["callbacks"]["stop_on_signal"]["asked"]
    path.write_text(yaml.safe_dump(config))
    (run / "log.txt").unlink()
    before = stamps(finished)
    assert ablation.run([*heads_overrides, f"out={finished}"]) is not None
    assert stamps(finished) == before
    assert "heads: 4 jobs, 4 done" in capsys.readouterr().out
    assert not (run / "log.txt").exists()


def test_a_lost_job_is_made_up_unless_another_process_has_it(
    finished: Path, heads_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    lost, elsewhere = finished / "sep" / "seed1", finished / "siamese_gia" / "seed1"
    before = stamps(finished)
    (lost / "test" / "metrics.json").unlink()
    (lost / "checkpoints" / "last.ckpt").unlink()
    (elsewhere / "test" / "predictions.json").unlink()
    with FileLock(elsewhere.parent / ".seed1.lock"):
        # flock is per open file, so that this process can stand in for another one.
        assert ablation.run([*heads_overrides, f"out={finished}"]) is None
    assert "1 jobs are with other processes" in capfd.readouterr().out
    changed = {path for path, stamp in stamps(finished).items() if before.get(path) != stamp}
    assert changed
    assert all(lost in path.parents for path in changed)
    assert not (elsewhere / "test" / "predictions.json").exists()
    assert ablation.run([*heads_overrides, f"out={finished}"]) is not None
    assert (elsewhere / "test" / "predictions.json").is_file()


def test_other_settings_are_refused_in_the_same_folder(
    finished: Path, heads_overrides: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"heads\.batch_size: 2 there, 3 now"):
        ablation.run([*heads_overrides, f"out={finished}", "heads.batch_size=3"])
    with pytest.raises(ConfigError, match=r"delta: 0.5 there, 0.7 now"):
        ablation.run([*heads_overrides, f"out={finished}", "delta=0.7"])
    with pytest.raises(ConfigError, match=r"protocol: heads there, end_to_end now"):
        ablation.run([*heads_overrides, f"out={finished}", "ablation.protocol=end_to_end"])
    with pytest.raises(ConfigError, match=r"trainer\.accumulate_grad_batches: 1 there, 2 now"):
        ablation.run([*heads_overrides, f"out={finished}", "trainer.accumulate_grad_batches=2"])


def test_runs_of_another_trunk_or_data_set_are_refused(
    finished: Path, heads_overrides: list[str], tmp_path: Path
) -> None:
    content = torch.load(finished / "trunk" / "checkpoints" / "best.ckpt", weights_only=True)
    name = next(k for k in content["model"] if k.startswith("backbone") and k.endswith("weight"))
    content["model"][name] = content["model"][name] + 0.01
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="holds a run on another trunk"):
        ablation.run(
            [*heads_overrides, f"out={finished}", f"ablation.trunk={tmp_path / 'other.ckpt'}"]
        )
    job = Job("sep", 0, finished / "sep" / "seed0", ())
    with pytest.raises(ConfigError, match="holds a run on another data set"):
        job.check_origin("0" * 64, None)


def test_end_to_end_shares_the_work_between_two_processes_and_publishes(
    shared_overrides: list[str], finished: Path, tmp_path: Path, programs: Programs
) -> None:
    out, results = tmp_path / "out", tmp_path / "docs" / "RESULTS.md"
    results.parent.mkdir()
    results.write_text("# Results\n\nKept.\n")
    overrides = [*shared_overrides, *SMALL, f"out={out}", "ablation.protocol=end_to_end"]
    overrides += ["ablation.seeds=1", "ablation.jobs=2", f"ablation.results={results}"]
    overrides.append(f"ablation.trunk={finished / 'trunk' / 'checkpoints' / 'best.ckpt'}")
    done = programs.run("deepacc_lightning.ablation", *overrides)
    assert done.returncode == 0, done.stderr
    assert "[2/2]" in done.stdout
    text = results.read_text()
    assert text.startswith("# Results\n\nKept.\n")
    assert "<!-- begin ablation_end_to_end -->" in text
    assert "siamese_gia" in text
    assert "images/ablation_end_to_end_metrics.png" in text
    assert (results.parent / "images" / "ablation_end_to_end_metrics.png").is_file()
    assert str(tmp_path) not in text


def test_a_preset_outside_table_1_runs_on_the_same_trunk(
    heads_overrides: list[str], finished: Path, tmp_path: Path
) -> None:
    """Pair centers need the proposals' boxes, which the cache gives."""
    out, trunk = tmp_path / "out", finished / "trunk" / "checkpoints" / "best.ckpt"
    overrides = [*heads_overrides, f"out={out}", f"ablation.trunk={trunk}", "ablation.seeds=1"]
    alone = "siamese_gia+center=pair"
    ablation.run([*overrides, f'ablation.presets=[sep,deepacc,"{alone}"]'])
    entry = json.loads((out / "report" / "metrics.json").read_text())["presets"]["deepacc"]
    assert (entry["row"], entry["model"]) == (None, "sep + siamese + AAM + GIA, pair centers")
    run = out / "deepacc" / "seed0"
    assert json.loads((run / "run.json").read_text())["steps"] == 3
    content = read_checkpoint(run / "checkpoints" / "best.ckpt")
    branch = build_from_checkpoint(content, "best.ckpt").roi_heads.box_predictor.inference_branch
    assert (branch.center, branch.center_share) == ("pair", 0.5)
    # A preset with a setting of its own is a row of its own.
    entries = json.loads((out / "report" / "metrics.json").read_text())["presets"]
    assert list(entries) == ["sep", alone, "deepacc"]
    assert (entries[alone]["row"], entries[alone]["model"]) == (
        "f'",
        "sep + siamese + AAM + GIA, center=pair",
    )
    config = yaml.safe_load((out / alone / "seed0" / "config.yaml").read_text())
    assert (config["preset"], config["center"], config["center_share"]) == (
        "siamese_gia",
        "pair",
        1.0,
    )
    centers = (out / "report" / "centers.md").read_text()
    assert re.search(r"`deepacc` +\| 0\.5", centers)
    assert "| Partner Right" in centers


def test_a_failing_job_does_not_stop_the_others(
    heads_overrides: list[str], finished: Path, tmp_path: Path
) -> None:
    trunk = finished / "trunk" / "checkpoints" / "best.ckpt"
    overrides = [*heads_overrides, f"out={tmp_path / 'out'}", "ablation.seeds=1"]
    overrides.append(f"ablation.trunk={trunk}")
    last = tmp_path / "out" / "sep" / "seed0" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"cut short")
    with pytest.raises(
        ablation.JobsFailedError, match=r"1 of 2.*sep seed 0.*last\.ckpt is damaged"
    ):
        ablation.run(overrides)
    assert (tmp_path / "out" / "siamese_gia" / "seed0" / "test" / "metrics.json").is_file()
    last.unlink()
    assert ablation.run(overrides) is not None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ablation.protocol=both", "heads or end_to_end"),
        ("ablation.presets=[seb]", "unknown preset seb"),
        ("ablation.presets=[]", "none given"),
        ('ablation.presets=["sep+delta"]', "'delta' is no setting: write such as"),
        ('ablation.presets=["sep+delay=1"]', r"sep\+delay=1: unknown key delay: did you mean"),
        ("ablation.seeds=0", "expected a count"),
        ("ablation.seeds=[]", "expected a count"),
        ("ablation.jobs=0", "number of processes"),
        ("trainer.devices=2", "use JOBS"),
        ("sweep.launcher=slurm", "choose basic, joblib"),
        ("alpha=.1,.2", "varies presets and seeds only, use make sweep"),
        ("resume=runs/a", "the same command continues by itself"),
        ("data.weights=[2]", r"data\.weights: PROTOCOL=heads sees each cached image once"),
        ("trainer.max_epochs=3", r"use heads\.max_epochs"),
        ("model.roi_heads.box_predictor.gia.anchor=predicted", "sep: .*gia"),
        ("seed=3", "use EXPS, SEEDS or CKPT"),
        ("experiment=sep", "use EXPS, SEEDS or CKPT"),
    ],
)
def test_bad_arguments(heads_overrides: list[str], override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ablation.run([*heads_overrides, override])


def test_a_preset_without_heads_is_refused_before_anything_is_trained(
    shared_overrides: list[str], tmp_path: Path
) -> None:
    overrides = [*shared_overrides, f"out={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match="retinanet has no ROI heads"):
        ablation.run([*overrides, "ablation.presets=[sep,retinanet]"])
    assert not (tmp_path / "out").exists()


def test_a_trunk_of_another_network_is_refused(
    heads_overrides: list[str], finished: Path, tmp_path: Path
) -> None:
    trunk = finished / "trunk" / "checkpoints" / "best.ckpt"
    overrides = [*heads_overrides, f"out={tmp_path / 'out'}", f"ablation.trunk={trunk}"]
    with pytest.raises(ablation.JobsFailedError, match="is not this model's"):
        ablation.run([*overrides, "scale.fpn.out_channels=64"])
    with pytest.raises(DataError, match="does not exist"):
        ablation.run([*heads_overrides, f"out={tmp_path / 'o2'}", "ablation.trunk=/no/such.ckpt"])


def test_first_difference_names_the_key() -> None:
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 1}}, "x") == ""
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}, "x") == "x.a.b: 1 there, 2 now"
    assert first_difference({"pixel_mean": 3}, {"pixel_mean": None}, "x") == ""
    assert first_difference({"a": 1, "c": 2}, {"a": 1}, "x") == "x.c: 2 there, None now"


def test_a_table_says_presets_protocol_and_reference() -> None:
    one, two = (ablation.compose_own([*also]) for also in ((), ('table="2"',)))
    assert (one.ablation.protocol, one.ablation.reference) == ("heads", "sep")
    assert list(one.ablation.presets)[:2] == ["baseline", "sep"]
    assert (two.ablation.protocol, two.ablation.reference) == ("end_to_end", "baseline")
    assert list(two.ablation.presets) == ["retinanet", "baseline", "siamese_gia", "deepacc"]


def test_table_2_compares_with_faster_rcnn(
    shared_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        o for o in shared_overrides if not o.startswith(("ablation.p", "heads.", "ablation.s"))
    ]
    # A number, as make and people write it.
    options = ["table=2", "ablation.presets=[retinanet,baseline]", "ablation.seeds=1"]
    result = ablation.run([*small, *options, "ablation.resamples=20", f"out={tmp_path / 'out'}"])
    assert result is not None
    assert (list(result.presets), result.reference) == (["retinanet", "baseline"], "baseline")
    assert "difference to baseline" in capsys.readouterr().out


def test_help_needs_no_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ablation", "--help"])
    ablation.main()
    assert capsys.readouterr().out.startswith("deepacc ablation: ")
