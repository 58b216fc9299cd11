from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from deepacc_d2.errors import ConfigError, DataError, Terminated
from deepacc_lightning import train
from deepacc_lightning.core.config import compose_config
from deepacc_lightning.training.checkpoint_io import read_intact
from deepacc_lightning.training.resume import continued, relocate
from tests.lightning.programs import Programs

HERE = Path(__file__).parents[1]
TRAIN = "deepacc_lightning.train"
# Three epochs of three steps; averaged weights and all of DeepACC's losses.
LONGER = (
    "experiment=siamese_gia",
    "callbacks=ema",
    "callbacks.progress=null",
    "callbacks.ema.warmup_steps=1",
    "scale.max_epochs=3",
    "test=false",
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums of floats depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(HERE))
    yield
    torch.set_num_threads(threads)


def _signal(name: str, step: int) -> list[str]:
    return [
        "+callbacks.signal._target_=signal_at_step.SignalAtStep",
        f"+callbacks.signal.name={name}",
        f"+callbacks.signal.step={step}",
    ]


def _config(overrides: list[str], out: Path) -> DictConfig:
    return compose_config("train", [*overrides, *LONGER, f"out={out}"])


def _resume(out: Path) -> None:
    """Continues in a directory, with the stopping callback of its config taken out."""
    cfg = continued(out, [])
    if "signal" in cfg.callbacks:
        cfg.callbacks.signal = None
    train.run(cfg)


def _state(out: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)


def _assert_same_state(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_same_state(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_same_state(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


def _assert_same_training(a: Path, b: Path) -> None:
    one, other = _state(a), _state(b)
    for key in ("epoch", "global_step", "model", "state_dict", "current_model_state"):
        _assert_same_state(one[key], other[key], key)
    for key in ("optimizer_states", "lr_schedulers", "deepacc_training"):
        _assert_same_state(one[key], other[key], key)


@pytest.fixture(scope="module")
def reference(shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing stopped."""
    out = tmp_path_factory.mktemp("reference") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train.run(_config(shared_overrides, out))
    torch.set_num_threads(threads)
    return out


@pytest.mark.parametrize("every", [None, 2], ids=["epochs_only", "within_epochs"])
def test_a_killed_training_ends_as_if_nothing_had_happened(
    overrides: list[str], tmp_path: Path, reference: Path, programs: Programs, every: int | None
) -> None:
    out = tmp_path / "run"
    extra = _signal("SIGKILL", 5)  # the last step of the second epoch
    if every:
        extra += [
            "callbacks.timed_checkpoint.train_time_interval=null",
            f"+callbacks.timed_checkpoint.every_n_train_steps={every}",
        ]
    done = programs.run(TRAIN, *overrides, *LONGER, *extra)
    assert done.returncode == -9, done.stderr
    assert _state(out)["global_step"] == (4 if every else 3)
    assert json.loads((out / "run.json").read_text())["status"] == "running"
    _resume(out)
    _assert_same_training(out, reference)
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def _interrupt(overrides: list[str], out: Path, name: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        train.run(_config([*overrides, *_signal(name, 4)], out))
    # The step in which the signal came was finished: it is the fifth.
    assert _state(out)["global_step"] == 5
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"


@pytest.fixture(scope="module")
def interrupted(
    shared_overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A training that SIGTERM ended after its fifth step, and a copy of it."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        _interrupt(shared_overrides, out, "SIGTERM", Terminated)
    torch.set_num_threads(threads)
    return out, Path(shutil.copytree(out, out.with_name("moved")))


def test_after_sigterm_it_is_continued_as_if_unbroken(
    interrupted: tuple[Path, Path], reference: Path
) -> None:
    import pandas as pd

    out, _ = interrupted
    _resume(out)
    _assert_same_training(out, reference)
    found, wanted = (pd.read_csv(folder / "csv" / "metrics.csv") for folder in (out, reference))
    names = [c for c in wanted if c.startswith(("train/", "val/"))]
    steps = [frame.dropna(subset=["train/loss"])["step"].tolist() for frame in (found, wanted)]
    assert steps[0] == steps[1] == list(range(9))
    for name in names:
        one, other = (frame[name].dropna().tolist() for frame in (found, wanted))
        assert one == other, name


def test_after_ctrl_c_it_is_continued_as_if_unbroken(
    shared_overrides: list[str], tmp_path: Path, reference: Path
) -> None:
    out = tmp_path / "run"
    _interrupt(shared_overrides, out, "SIGINT", KeyboardInterrupt)
    _resume(out)
    _assert_same_training(out, reference)


def test_a_signal_in_the_last_step_of_an_epoch_waits_for_its_validation(
    shared_overrides: list[str], tmp_path: Path, reference: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Terminated):
        train.run(_config([*shared_overrides, *_signal("SIGTERM", 2)], out))
    assert _state(out)["global_step"] == 3
    assert (out / "checkpoints" / "best.ckpt").is_file()
    _resume(out)
    _assert_same_training(out, reference)


@pytest.fixture
def stopped(shared_overrides: list[str], tmp_path: Path, reference: Path) -> Path:
    """A copy of the finished run, which can be damaged."""
    out = tmp_path / "stopped"
    shutil.copytree(reference, out)
    return out


def test_a_truncated_last_checkpoint_gives_way_to_the_one_before(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = stopped / "checkpoints" / "last.ckpt"
    previous = last.with_name("previous.ckpt")
    assert read_intact(previous)["global_step"] == 6
    last.write_bytes(last.read_bytes()[:-1000])
    assert continued(stopped, []).ckpt_path == str(previous)
    printed = capsys.readouterr().out
    assert f"warning: checkpoint {last} is damaged" in printed
    assert f"continuing from the one before it, {previous}" in printed


def test_a_flipped_bit_is_found(stopped: Path) -> None:
    last = stopped / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"last\.ckpt is damaged"):
        read_intact(last)


def test_no_checkpoint_that_can_be_read_is_an_error(stopped: Path) -> None:
    for path in (stopped / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"last\.ckpt is damaged.*no other checkpoint"):
        continued(stopped, [])


def test_a_run_without_a_checkpoint_starts_from_the_beginning(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(stopped / "checkpoints")
    assert continued(stopped, []).ckpt_path is None
    assert "no checkpoint yet" in capsys.readouterr().out


def _as_begun_by_make(run: Path, overrides: list[str]) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["overrides"] = [*overrides, *LONGER]
    (run / "run.json").write_text(json.dumps(facts))


def test_what_was_said_when_it_began_still_holds(
    stopped: Path, shared_overrides: list[str]
) -> None:
    _as_begun_by_make(stopped, shared_overrides)
    cfg = continued(stopped, ["experiment=siamese_gia", "+logger.csv.flush_logs_every_n_steps=7"])
    assert (cfg.preset, cfg.scale.image_size, cfg.out) == ("siamese_gia", 96, str(stopped))
    assert cfg.logger.csv.flush_logs_every_n_steps == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment=sep", r"preset: siamese_gia there, sep now"),
        ("alpha=0.7", r"alpha: 0\.1 there, 0\.7 now"),
        ("optim=sgd", r"optim\."),
        ("scale.max_epochs=4", r"max_epochs: 3 there, 4 now"),
        ("callbacks.ema.decay=0.5", r"ema\.decay: 0\.998 there, 0\.5 now"),
        ("scale.batch_size=1", r"batch_size: 2 there, 1 now"),
    ],
)
def test_other_settings_are_refused(
    stopped: Path, shared_overrides: list[str], override: str, message: str
) -> None:
    _as_begun_by_make(stopped, shared_overrides)
    with pytest.raises(ConfigError, match=rf"holds a run of other settings \(.*{message}"):
        continued(stopped, [override])


def test_a_run_of_before_pair_centers_continues_with_single_ones(
    stopped: Path, shared_overrides: list[str]
) -> None:
    path = stopped / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    older = [line for line in lines if not line.strip().startswith(("center:", "center_share:"))]
    assert len(lines) - len(older) == 4
    path.write_text("".join(older))
    _as_begun_by_make(stopped, shared_overrides)
    assert continued(stopped, []).center == "single"
    with pytest.raises(ConfigError, match=r"center: single there, pair now"):
        continued(stopped, ["center=pair"])


def test_a_run_of_another_program_takes_no_overrides(stopped: Path) -> None:
    with pytest.raises(ConfigError, match="was not begun by make train"):
        continued(stopped, ["seed=1"])


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run directory \(config\.yaml is missing\)"):
        continued(tmp_path, [])


def test_another_data_set_is_refused(stopped: Path) -> None:
    facts = json.loads((stopped / "run.json").read_text())
    facts["data"]["fingerprint"] = "f" * 64
    (stopped / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="trained on another data set"):
        train.run(continued(stopped, []))


def test_the_command_line_continues_twice(
    shared_overrides: list[str], tmp_path: Path, reference: Path, programs: Programs
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Terminated):
        train.run(_config([*shared_overrides, *_signal("SIGTERM", 1)], out))
    _as_begun_by_make(out, [*shared_overrides, *_signal("SIGTERM", 4)])

    again = programs.run(TRAIN, f"resume={out}")
    assert again.returncode == 143, again.stderr
    assert f"interrupted by SIGTERM; checkpoint kept in {out}" in again.stderr
    assert _state(out)["global_step"] == 5

    done = programs.run(TRAIN, f"resume={out}", "experiment=siamese_gia")
    assert done.returncode == 0, done.stderr
    _assert_same_training(out, reference)

    nothing = programs.run(TRAIN, f"resume={out}")
    assert (nothing.returncode, nothing.stdout.splitlines()[0]) == (
        0,
        f"{out} is finished: there is nothing to continue",
    )
    other = programs.run(TRAIN, f"resume={out}", "experiment=sep")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1].startswith(f"error: {out} holds a run of other settings")


def test_a_directory_with_a_run_is_not_trained_into(stopped: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"holds a run already: continue it with RESUME={stopped}"
    ):
        train.check_new(stopped)
    train.check_new(stopped.with_name("new"))


def test_the_best_checkpoint_is_found_in_a_moved_run(interrupted: tuple[Path, Path]) -> None:
    out, moved = interrupted
    best = moved / "checkpoints" / "best.ckpt"
    assert best.is_file()
    content = torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)
    relocate(content, moved)
    paths = [s["best_model_path"] for s in content["callbacks"].values() if "best_model_path" in s]
    assert str(best) in paths
    assert not any(str(out) + "/" in path for path in paths)
    _resume(moved)
    assert json.loads((moved / "run.json").read_text())["best"]["checkpoint"] == str(best)


def test_accumulated_gradients_are_not_left_behind(
    shared_overrides: list[str], tmp_path: Path
) -> None:
    # Three batches an epoch, two of them a step, the last one alone.
    more = [*shared_overrides, "trainer.accumulate_grad_batches=2", "scale.batch_size=2"]
    train.run(_config(more, tmp_path / "whole"))
    out = tmp_path / "run"
    with pytest.raises(Terminated):
        train.run(_config([*more, *_signal("SIGTERM", 2)], out))
    assert _state(out)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 2
    _resume(out)
    _assert_same_training(out, tmp_path / "whole")


def test_averages_begin_when_a_short_warm_up_ends(reference: Path) -> None:
    content = _state(reference)
    # Nine steps: the warm-up of one, then eight that count.
    assert int(content["averaging_state"]["n_averaged"]) == 8
    raw, averaged = content["current_model_state"], content["state_dict"]
    weights = [name for name in raw if name.endswith("weight")]
    assert not any(torch.equal(raw[name], averaged[name]) for name in weights)


def test_a_signal_to_the_whole_group_spares_the_loader_workers(
    overrides: list[str], tmp_path: Path, programs: Programs
) -> None:
    out = tmp_path / "run"
    more = ["scale.num_workers=2", "scale.max_epochs=10000", "test=false", f"out={out}"]
    process = programs.start(TRAIN, *overrides, *more, own=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoints" / "last.ckpt").is_file():
            assert process.poll() is None, process.said()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 143, errors
    assert errors.count("SIGTERM: ending after this step") == 1
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
