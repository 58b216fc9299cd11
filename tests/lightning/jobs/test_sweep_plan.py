"""A sweep's command line: read, checked and named, without any training."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from deepacc_d2.command.arguments import compose
from deepacc_d2.errors import ConfigError, DataError
from deepacc_lightning.jobs import launchers
from deepacc_lightning.jobs.launchers import MissingExtraError, check_extra, launcher_overrides
from deepacc_lightning.jobs.sweep_plan import (
    Sweep,
    job_name,
    make_plan,
    parse,
    read_request,
    short_names,
    values_of,
)
from deepacc_lightning.reports.sweep_report import best_command

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def base(tiny_data: Path) -> list[str]:
    return ["experiment=siamese_gia", "data=coco", f"data.root={tiny_data}"]


@pytest.fixture(scope="module")
def plan(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("plan") / "s"
    return make_plan([*base, "alpha=.05,.1,2e-1", "m=.25,.5", "seed=0,1", f"sweep.dir={folder}"])


def test_a_grid_has_every_combination_once_with_readable_names(plan: Sweep) -> None:
    names = [job.out.name for job in plan.jobs]
    expected = [
        f"alpha={alpha},m={m},seed={seed}"
        for alpha in ("0.05", "0.1", "0.2")
        for m in ("0.25", "0.5")
        for seed in (0, 1)
    ]
    assert names == expected
    cfg = plan.jobs[-1].compose()
    assert (cfg.alpha, cfg.m, cfg.seed, cfg.preset) == (0.2, 0.5, 1, "siamese_gia")
    assert cfg.out == str(plan.jobs[-1].out)
    assert cfg.model.roi_heads.box_predictor.alpha == 0.2
    assert cfg.group == "s"
    assert not plan.folder.exists()  # a plan writes nothing


def test_the_same_command_gives_the_same_folder_and_other_keys_another(base: list[str]) -> None:
    folders = [
        make_plan([*base, *more]).folder
        for more in (["alpha=.1,.2"], ["alpha=.1,.3", "beta=1"], ["m=.1,.2"], ["alpha=.1", "s=8,9"])
    ]
    assert folders[0] == Path("runs/sweep-siamese_gia-quick-tiny-alpha").resolve()
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3
    several = make_plan([*base[1:], "experiment=sep,baseline", "seed=0,1"])
    assert several.folder.name == "sweep-quick-tiny-experiment-seed"


def test_values_typed_differently_are_the_same_value() -> None:
    assert values_of(parse("alpha=.05,0.05,5e-2,.1")) == ["0.05", "0.1"]
    assert values_of(parse("s=range(8,32,8)")) == ["8", "16", "24"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"alpha": "0.1", "m": "0.25"}, "alpha=0.1,m=0.25"),
        ({"optim.optimizer.lr": "1e-05", "experiment": "sep"}, "lr=1e-05,experiment=sep"),
        ({"a.lr": "1", "b.lr": "2"}, "a.lr=1,b.lr=2"),
        ({"+trainer.limit_train_batches": "2"}, "limit_train_batches=2"),
        ({"model/margin_branch@x.margin_branch": "linear"}, "margin_branch=linear"),
    ],
)
def test_names(values: dict[str, str], name: str) -> None:
    assert job_name(values) == name


def test_names_fit_a_file_system_and_differ() -> None:
    paths = [
        job_name({"init_weights": f"'/a b/{name}.ckpt'"}) for name in ("x", "x_", "ä", "x" * 90)
    ]
    assert len(set(paths)) == 4
    assert not any(set(name) & set("/ '\"$*") for name in paths)
    long = [job_name({f"key{i}": str(i + shift) for i in range(60)}) for shift in (0, 1)]
    assert all(len(name) <= 160 for name in long)
    assert long[0] != long[1]


def test_short_names_stay_apart() -> None:
    names = {"alpha": "alpha", "x.alpha": "x.alpha", "x.y.m": "m"}
    assert short_names(names) == names


def test_the_last_of_two_overrides_holds_and_hydras_own_are_kept_apart() -> None:
    request = read_request(["alpha=.1,.2", "m=.5", "alpha=.3", "m=.1,.2", "hydra.launcher.x=1"])
    assert request.fixed == ("alpha=.3",)
    assert [o.input_line for o in request.swept] == ["m=.1,.2"]
    assert request.hydra == ("hydra.launcher.x=1",)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["alhpa=.1,.2"], "unknown key alhpa: did you mean alpha?"),
        (["optim.lr=.1,.2"], r"unknown key optim.lr: did you mean optim\.optimizer\.lr\?"),
        (["alpha=abc,.1"], "alpha=.abc.: a loss weight must be a number"),
        (["optim.optimizer.lr=high,.1"], r"lr=high: expected a number, such as 0\.001"),
        (["scale.max_epochs=1.5,6"], r"scale\.max_epochs=1\.5: expected a whole number, such as"),
        (["test=3,4"], "test=3: expected true or false"),
        (["scale.roi.fc_dims=16,32"], r"fc_dims=16: expected a list, such as \[512, 512\]"),
        (["alpha=.1,-1"], "alpha=-1: a loss weight"),
        (["m=.1,4"], r"m=4: the angular margin must be in \[0, pi\) radians"),
        (["delta=.5,2"], "delta=2"),
        (["center=pair,trio"], "center='trio': choose single or pair"),
        (["center_share=.5,2"], "center_share=2"),
        (["alpha=.1,.2", "scale.max_epochs=1.5"], "expected a whole number"),
        (["alpha=.1"], "nothing to sweep over"),
        (["experiment=siamese_gia,nope"], "unknown experiment 'nope': there is aam, baseline"),
        (["experiment=sep", "alpha=.1,.2"], "alpha changes nothing in this training"),
        (["alpha=interval(.1,.2)"], "intervals are for SWEEPER=optuna"),
        (["alpha=.1,(.2"], r"alpha=\.1,\(\.2: "),
        (["alpha=.1,.2", "trainer=ddp"], "trains on one device"),
        (["alpha=.1,.2", "trainer=ddp_sim"], "trains on one device"),
        (["alpha=.1,.2", "trainer.devices=2"], "trains on one device"),
        (["alpha=.1,.2", "trainer.devices=auto"], "trains on one device"),
        (["alpha=.1,.2", "+trainer.num_nodes=2"], "trains on one device"),
        (["alpha=.1,.2", "ckpt_path=a.ckpt"], "ckpt_path is set by the sweep.*leave CKPT out"),
        (["alpha=.1,.2", "out=/a"], "out is set by the sweep.*use OUT"),
        (["alpha=.1,.2", "hydra.callbacks.x=1"], "a job calls none of Hydra's callbacks"),
        (["alpha=.1,.2", "scale.max_epochs=2"], "ends before the first validation"),
        (["alpha=.1,.2", "sweep.launcher=slurm"], "LAUNCHER=slurm: choose basic, joblib"),
        (["alpha=.1,.2", "sweep.sweeper=random"], "SWEEPER=random: choose grid, optuna"),
        (["alpha=.1,.2", "sweep.jobs=2"], "JOBS=2: LAUNCHER=basic runs one job at a time"),
        (["alpha=.1,.2", "sweep.jobs=0", "sweep.launcher=ray"], "JOBS=0: expected a whole"),
        (["alpha=.1,.2", "sweep.trials=1,2"], "has one value"),
        (["sweep.sweeper=optuna", "sweep.trials=0"], "N=0: expected a whole number above zero"),
        (["sweep.sweeper=optuna", "sweep.trials=x"], "N=x: expected a whole number above zero"),
        (["sweep.sweeper=optuna", "sweep@space=methd"], "unknown SPACE 'methd': there is method"),
        (["alpha=.1,.2", "sweep@space=method"], "SPACE is what SWEEPER=optuna searches"),
        (["sweep.sweeper=optuna", "m=interval(0,4)"], "m=4.0: the angular margin"),
    ],
)  # fmt: skip
def test_bad_input_is_reported_in_one_line(base: list[str], more: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make_plan([*base, *more])
    assert "\n" not in str(caught.value)


def test_data_without_a_directory() -> None:
    with pytest.raises(ConfigError, match=r"data\.root is not set: pass DATA_DIR="):
        make_plan(["experiment=siamese_gia", "alpha=.1,.2", "data=coco"])


def test_a_folder_holds_one_sweep(base: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "s"
    here = [*base, f"sweep.dir={folder}"]
    sweep = make_plan([*here, "alpha=.1,.2"])
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps(sweep.manifest))
    assert len(make_plan([*here, "alpha=.1,.2,.3"]).jobs) == 3  # values may be added
    with pytest.raises(ConfigError, match=r"holds another sweep \(keys: \['alpha'\] there"):
        make_plan([*here, "alpha=.1,.2", "m=.1,.2"])
    with pytest.raises(ConfigError, match=r"holds another sweep \(sweeper: grid there"):
        make_plan([*here, "alpha=interval(.1,.2)", "sweep.sweeper=optuna"])
    (folder / "sweep.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        make_plan([*here, "alpha=.1,.2"])
    (folder / "sweep.json").unlink()
    (folder / "notes.txt").touch()
    with pytest.raises(ConfigError, match="something other than a sweep"):
        make_plan([*here, "alpha=.1,.2"])


def test_equal_jobs_are_noted(base: list[str]) -> None:
    sweep = make_plan([*base[1:], "experiment=sep,siamese_gia", "alpha=.1,.2"])
    assert sweep.notes == ("1 of 4 jobs train the same as another one of them",)


def test_kinds_and_shares_of_centers_make_a_grid(base: list[str]) -> None:
    sweep = make_plan([*base, "center=single,pair", "center_share=.5,1"])
    found = [
        (t.cfg.model.roi_heads.box_predictor.inference_branch.center, t.cfg.center_share)
        for t in sweep.found
    ]
    assert found == [("single", 0.5), ("single", 1), ("pair", 0.5), ("pair", 1)]
    assert sweep.jobs[2].out.name == "center=pair,center_share=0.5"
    with pytest.raises(ConfigError, match="center changes nothing"):
        make_plan([*base[1:], "experiment=aam", "center=single,pair"])


def test_a_detector_without_heads_is_swept_over_too(base: list[str]) -> None:
    sweep = make_plan([*base[1:], "experiment=retinanet", "optim.optimizer.lr=.01,.02"])
    assert [job.compose().preset for job in sweep.jobs] == ["retinanet", "retinanet"]
    with pytest.raises(ConfigError, match="alpha changes nothing"):
        make_plan([*base[1:], "experiment=retinanet", "alpha=.1,.2"])


@pytest.mark.parametrize("space", ["method", "optimizer"])
def test_declared_spaces_are_read_and_allowed(base: list[str], space: str) -> None:
    sweep = make_plan([*base, "sweep.sweeper=optuna", f"sweep@space={space}"])
    expected = {"method": 8, "optimizer": 3}[space]
    assert len(sweep.keys) == len(sweep.space) == expected
    assert sweep.notes == ()
    assert sweep.folder.name.startswith("sweep-siamese_gia-quick-tiny-optuna-")


def test_a_space_is_changed_by_what_is_said_of_its_keys(base: list[str]) -> None:
    sweep = make_plan(
        [*base, "sweep.sweeper=optuna", "sweep@space=method", "m=0.3", "s=choice(32,64)"]
    )
    centers = {"center", "center_share"}
    assert set(sweep.keys) == {"alpha", "beta", "gamma", "s", "delta"} | centers
    assert sweep.space["s"] == "choice(32,64)"
    assert sweep.found[0].cfg.m == 0.3
    by_default = make_plan([*base, "sweep.sweeper=optuna"])
    assert by_default.space["m"] == "interval(0.0, 0.6)"


def test_keys_of_a_space_that_the_experiment_does_not_read_are_left_out(base: list[str]) -> None:
    sweep = make_plan([*base[1:], "experiment=aam", "sweep.sweeper=optuna"])
    assert set(sweep.keys) == {"alpha", "m", "s"}
    unread = "beta, gamma, delta, center, center_share"
    assert sweep.notes == (f"aam does not read {unread}: left out of the space",)
    with pytest.raises(ConfigError, match="changes nothing"):
        make_plan([*base[1:], "experiment=sep", "sweep.sweeper=optuna"])


def test_the_best_command_trains_the_same_config(plan: Sweep, tiny_data: Path) -> None:
    job = plan.jobs[3]
    words = shlex.split(best_command(job, plan))
    assert words[:2] == ["make", "train"]
    variables = dict(word.split("=", 1) for word in words[2:])
    assert (variables["EXP"], variables["SEED"]) == ("siamese_gia", "1")
    assert variables["DATA"] == str(tiny_data)
    _, _, *overrides = compose("train", variables, ROOT / "conf")
    from deepacc_lightning.core.config import compose_config, to_plain
    from deepacc_lightning.training.run_settings import settings_of

    ours, theirs = compose_config("train", overrides), job.compose()
    assert settings_of(to_plain(ours)) == settings_of(to_plain(theirs))
    assert ours.data == theirs.data


def test_the_best_command_names_several_data_sets(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "my cells"]
    for root in roots:
        root.mkdir()
    named = f'data.root=["{roots[0]}","{roots[1]}"]'
    sweep = make_plan(["data=coco", named, "data.weights=[1,1],[1,3]", "sweep.dir=/s"])
    words = shlex.split(best_command(sweep.jobs[1], sweep, root=tmp_path))
    variables = dict(word.split("=", 1) for word in words[2:])
    assert variables == {"EXP": "baseline", "DATA": "a 'my cells'", "ARGS": "data.weights=[1,3]"}
    words = shlex.split(best_command(sweep.jobs[1], sweep, root=Path("/elsewhere")))
    variables = dict(word.split("=", 1) for word in words[2:])
    _, _, *overrides = compose("train", variables, ROOT / "conf")
    assert set(overrides) >= {"data=coco", "data.weights=[1,3]"}
    assert sweep.jobs[1].compose().data.root == list(map(str, roots))


def test_the_best_command_keeps_blanks_quotes_and_dollars(base: list[str], tmp_path: Path) -> None:
    odd = [*base, "alpha=.1,.2", "init_weights='a b.ckpt'", "scale.roi.fc_dims=[8,8]"]
    odd += ["trainer.max_steps=${scale.max_epochs}", f"sweep.dir={tmp_path / 's'}"]
    sweep = make_plan([*odd, "trainer.check_val_every_n_epoch=1"])
    command = best_command(sweep.jobs[0], sweep)
    assert "$${scale.max_epochs}" in command  # make makes one of it
    words = shlex.split(command.replace("$$", "$"))
    arguments = shlex.split(dict(word.split("=", 1) for word in words[2:])["ARGS"])
    assert set(odd[4:7]) <= set(arguments)
    assert "alpha=0.1" in arguments


def test_a_missing_extra_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    check_extra("basic", "LAUNCHER=basic")
    monkeypatch.setitem(launchers.PLUGINS, "ray", ("hydra_plugins.no_such_launcher", "ray"))
    words = "LAUNCHER=ray needs no_such_launcher, which is not installed: make setup EXTRAS=ray"
    with pytest.raises(MissingExtraError, match=f"^{words}$"):
        check_extra("ray", "LAUNCHER=ray")


def test_launchers_get_their_share_and_the_users_options_last(
    base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(launcher: str, *given: str) -> list[str]:
        sweep = make_plan([*base, "alpha=.1,.2", f"sweep.launcher={launcher}", "sweep.jobs=2"])
        return launcher_overrides(sweep.cfg.sweep, given)

    assert of("joblib") == ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    monkeypatch.setattr(launchers.shutil, "which", lambda name: "/usr/bin/sbatch")
    slurm = of("submitit", "hydra.launcher.partition=gpu")
    assert slurm[0] == "hydra/launcher=submitit_slurm"
    assert slurm[-1] == "hydra.launcher.partition=gpu"
    monkeypatch.setattr(launchers.shutil, "which", lambda name: None)
    assert of("submitit")[0] == "hydra/launcher=submitit_local"
    own = of("ray")
    assert any("ray.remote.num_cpus=" in text for text in own)
    cluster = of("ray", "++hydra.launcher.ray.init.address=auto")
    assert not any("num_cpus" in text for text in cluster)
