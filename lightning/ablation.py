"""``make ablation``: a sweep over presets and seeds, on a shared trunk or not, and its table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from deepacc_d2.checkpoint import read_checkpoint
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.evaluation.ablation.report import AblationResult
from deepacc_d2.modeling.cached import fingerprint, trunk_weights
from deepacc_d2.sole_use import FOREVER, sole_use
from deepacc_lightning import train
from deepacc_lightning.core.config import all_presets, compose_config, quoted
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.jobs import sweep_plan
from deepacc_lightning.jobs.heads import prepare_heads
from deepacc_lightning.jobs.job import Job, read_facts
from deepacc_lightning.jobs.launchers import check_extra
from deepacc_lightning.jobs.runner import run_program, running
from deepacc_lightning.jobs.sweep_check import (
    LAUNCHERS,
    Defaults,
    Training,
    check_jobs,
    check_origins,
)
from deepacc_lightning.jobs.sweep_plan import Request, read_request
from deepacc_lightning.jobs.train_job import run as train_end_to_end
from deepacc_lightning.reports.ablation_report import report

PROTOCOLS = ("heads", "end_to_end")
OWN = {key: use for key, use in sweep_plan.OWN.items() if key != "out"} | dict.fromkeys(
    ("experiment", "preset", "seed", "ckpt_path", "init_trunk", "test"),
    "use EXPS, SEEDS or CKPT of make ablation (ablation.presets, ablation.seeds, ablation.trunk)",
)
"""Keys that differ from job to job, or that every job needs as they are."""
HEADS_KEYS = ("max_epochs", "check_val_every_n_epoch", "gradient_clip_val")
HEADS_OVERRIDES = (
    "trainer.max_epochs=${heads.max_epochs}",
    "trainer.check_val_every_n_epoch=${heads.check_val_every_n_epoch}",
    "trainer.gradient_clip_val=${heads.optim.gradient_clip_val}",
    "init_weights=null",
)


class JobsFailedError(UserError):
    """Some jobs of an ablation failed; the others were done."""


def seeds_of(value: Any) -> list[int]:
    """Returns the seeds that a count or a list stands for.

    Raises:
        ConfigError: it is neither, or empty.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return list(range(value))
    if isinstance(value, ListConfig) and len(value) and all(isinstance(v, int) for v in value):
        return list(dict.fromkeys(value))
    raise ConfigError(f"ablation.seeds={value}: expected a count, or a list such as [0,1,2]")


def check_request(request: Request, heads: bool) -> None:
    """Refuses overrides with several values, and those that say how the heads are trained.

    Raises:
        ConfigError: names the key and what to use instead.
    """
    if request.swept:
        text = request.swept[0].input_line
        raise ConfigError(f"{text}: an ablation varies presets and seeds only, use make sweep")
    for override in request.fixed if heads else ():
        key = override.partition("=")[0].lstrip("+~")
        name = key.removeprefix("trainer.")
        if name != key and name in HEADS_KEYS:
            clip = name == "gradient_clip_val"
            raise ConfigError(
                f"{key} is of the trunk and the heads alike: use "
                f"{'heads.optim' if clip else 'heads'}.{name} for the heads and "
                f"{'optim' if clip else 'scale'}.{name} for the trunk"
            )


def check_settings(cfg: DictConfig) -> None:
    """Checks the ablation's own settings, and chooses a launcher where none is named.

    Raises:
        ConfigError: an unknown protocol, preset or launcher, or no processes.
    """
    settings, launcher = cfg.ablation, cfg.sweep.launcher
    if settings.protocol not in PROTOCOLS:
        raise ConfigError(f"ablation.protocol={settings.protocol}: choose {' or '.join(PROTOCOLS)}")
    if not isinstance(settings.jobs, int) or settings.jobs < 1:
        raise ConfigError(f"ablation.jobs={settings.jobs}: expected a number of processes")
    if launcher not in LAUNCHERS:
        raise ConfigError(f"sweep.launcher={launcher}: choose {', '.join(LAUNCHERS)}")
    if launcher == "basic" and settings.jobs > 1:
        cfg.sweep.launcher = launcher = "processes"
    check_extra(launcher, f"LAUNCHER={launcher}")
    if settings.protocol == "heads" and cfg.data.get("weights"):
        raise ConfigError(
            "data.weights: PROTOCOL=heads sees each cached image once an epoch; leave them out, or "
            "use PROTOCOL=end_to_end"
        )
    exist = all_presets()
    rows = [row.split("+") for row in settings.presets]
    unknown = [preset for preset, *_ in rows if preset not in exist]
    for change in (change for _, *changes in rows for change in changes):
        if not all(change.partition("=")):
            raise ConfigError(
                f"ablation.presets: {change!r} is no setting: write such as deepacc+delta=0.25"
            )
    if unknown or not settings.presets:
        raise ConfigError(
            f"ablation.presets: unknown preset {', '.join(unknown) or '(none given)'}: there is "
            f"{', '.join(exist)}"
        )


def plan(cfg: DictConfig, fixed: Sequence[str]) -> list[Training]:
    """Lists the jobs, all presets with the first seed, then with the next, and checks each.

    Raises:
        ConfigError: no seeds; an override that does not fit a preset; a preset without ROI heads
            under ``heads``; a folder with a job of other settings.
    """
    heads = cfg.ablation.protocol == "heads"
    out = Path(cfg.out).resolve()
    common = [*fixed, f"sweep.dir={quoted(out)}"]
    if heads:
        trunk = cfg.ablation.trunk or out / "trunk" / "checkpoints" / "best.ckpt"
        common += [*HEADS_OVERRIDES, f"ablation.trunk={quoted(Path(trunk).resolve())}"]
        common.append(f"ablation.cache={quoted(out / 'cache')}")
    elif cfg.ablation.trunk:
        common.append(f"init_trunk={quoted(Path(cfg.ablation.trunk).resolve())}")
    defaults = Defaults("ablation")
    found: list[Training] = []
    for seed in seeds_of(cfg.ablation.seeds):
        for row in dict.fromkeys(cfg.ablation.presets):
            preset, *changes = row.split("+")
            folder = out / row / f"seed{seed}"
            own = [f"experiment={preset}", *changes, f"seed={seed}", f"out={quoted(folder)}"]
            values = (("experiment", row), ("seed", str(seed)))
            job = Job(row, seed, folder, (*common, *own), values, "ablation")
            try:
                found += check_jobs(defaults, [job])
            except ConfigError as error:
                raise ConfigError(f"{row}: {error}") from error
            if heads and "roi_heads" not in found[-1].cfg.model:
                raise ConfigError(
                    f"{preset} has no ROI heads: PROTOCOL=heads is for presets of Faster R-CNN, "
                    "leave the others out of EXPS"
                )
    return found


def make_trunk(cfg: DictConfig, fixed: Sequence[str]) -> Path:
    """Returns the checkpoint of the trunk that all heads share; trains it if none is given."""
    if cfg.ablation.trunk:
        return Path(cfg.ablation.trunk).resolve()
    folder = Path(cfg.out).resolve() / "trunk"
    # What is said of the heads may not fit those that the trunk is trained with.
    common = [o for o in fixed if not o.lstrip("+~").startswith("model.roi_heads.")]
    common += ["ablation.protocol=end_to_end", f"sweep.dir={quoted(folder.parent)}"]
    own = [f"experiment={cfg.ablation.trunk_preset}", f"out={quoted(folder)}", "test=false"]
    job = Job(cfg.ablation.trunk_preset, cfg.seed, folder, (*common, *own), (), "ablation")
    with sole_use(folder, wait=FOREVER):
        composed = job.compose()
        job.check_same(composed)
        if "steps" not in read_facts(job):
            print(f"trunk: training {job.preset} end to end -> {folder}", flush=True)
            train_end_to_end(composed)
    return folder / "checkpoints" / "best.ckpt"


def run(overrides: Sequence[str]) -> AblationResult | None:
    """Runs the ablation that the overrides describe, or continues it.

    Returns:
        The comparison; none while other processes still have jobs.

    Raises:
        UserError: bad input, or a job failed.
        KeyboardInterrupt: after what was trained has been saved.
    """
    train.quiet()
    # Hydra takes the name of a choice for a number.
    overrides = [re.sub(r"^table=(\d+)$", r'table="\1"', text) for text in overrides]
    request = read_request(overrides, OWN, "ablation")
    cfg = compose_own(request.fixed)
    check_settings(cfg)
    heads = cfg.ablation.protocol == "heads"
    check_request(request, heads)
    found = plan(cfg, request.fixed)
    if cfg.ablation.trunk:
        read_checkpoint(cfg.ablation.trunk)
    out = make_run_dir(Path(cfg.out).resolve())
    trunk = make_trunk(cfg, request.fixed) if heads else None
    check_origins(
        found, fingerprint(trunk_weights(read_checkpoint(trunk)["model"])) if trunk else None
    )
    jobs = [training.job for training in found]
    left = [training for training in found if not training.job.done]
    print(f"{cfg.ablation.protocol}: {len(jobs)} jobs, {len(jobs) - len(left)} done -> {out}")
    if heads and left:
        # Here, for its progress to be seen. What is wrong with it fails the jobs, one by one.
        with suppress(UserError, OSError, RuntimeError):
            prepare_heads(left[0].cfg.copy())
    with running(out, cfg, len(jobs), request.hydra, waits=False) as runner:
        runner.run(jobs)
    return conclude(cfg, jobs, trunk)


def compose_own(overrides: Sequence[str]) -> DictConfig:
    """Composes the config of the ablation itself, whatever presets the overrides are for."""
    try:
        return compose_config("ablation", overrides)
    except (HydraException, OmegaConfBaseException):
        # An override of a part that the default preset lacks: which presets there are is needed.
        own = [o for o in overrides if not o.lstrip("+~").startswith("model.")]
        return compose_config("ablation", own)


def conclude(cfg: DictConfig, jobs: list[Job], trunk: Path | None) -> AblationResult | None:
    """Reports, unless other processes are still at it.

    Raises:
        JobsFailedError: some jobs failed; the report is of the others.
    """
    undone = [job for job in jobs if not job.done]
    elsewhere = [job for job in undone if job.claimed]
    if elsewhere:
        print(
            f"{len(elsewhere)} jobs are with other processes; the last one to end reports, or run "
            "the same command again",
            flush=True,
        )
        return None
    result = None
    if len(undone) < len(jobs):
        with FileLock(Path(cfg.out).resolve() / ".report.lock"):
            result = report(cfg, jobs, trunk)
    if undone:
        first = undone[0]
        raise JobsFailedError(
            f"{len(undone)} of {len(jobs)} jobs are not done, first {first.preset} seed "
            f"{first.seed}: {first.reason() or 'see above'}; see log.txt in their folders; the "
            "same command tries them again"
        )
    return result


def main() -> None:
    """Entry point; exits 2 on bad input, 130 on Ctrl-C and 143 on SIGTERM, with one line each."""
    run_program(run, "ablation")


if __name__ == "__main__":
    main()
