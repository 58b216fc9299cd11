"""What the command-line entry points share: checked overrides, one-line errors, exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from torch import distributed

from deepacc_d2.errors import (
    ConfigError,
    Terminated,
    UserError,
    end_on_sigterm,
    never_fail_to_print,
    no_room,
)
from deepacc_d2.secret import redacted
from deepacc_d2.sole_use import sole_use
from deepacc_lightning.core.config import compose_config, normalized
from deepacc_lightning.core.orphans import end_with_parent
from deepacc_lightning.core.processes import (
    DisagreementError,
    is_child,
    is_main_process,
    rank,
)
from deepacc_lightning.core.worker_loader import loader_error

Result = TypeVar("Result")


def alone(
    out: Callable[[DictConfig], str | Path],
) -> Callable[[Callable[[DictConfig], Result]], Callable[[DictConfig], Result]]:
    """Makes a program the only job that writes to its output while it runs.

    Of several processes of one job the main one has the place for all.

    Args:
        out: where a config says that the program writes.

    Returns:
        A decorator of the program, which then raises
        :class:`~deepacc_d2.sole_use.OccupiedError` where another job is at work there.
    """

    def decorate(run: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
        @wraps(run)
        def run_alone(cfg: DictConfig) -> Result:
            if not is_main_process():
                return run(cfg)
            with sole_use(out(cfg)):
                return run(cfg)

        return run_alone

    return decorate


def check_overrides(config_name: str, overrides: list[str]) -> DictConfig:
    """Composes the config once, so that a misspelled choice or key is reported in one line.

    Returns:
        The config.

    Raises:
        ConfigError: names the choice and what exists, or the key.
    """
    try:
        return compose_config(config_name, overrides)
    except MissingConfigException as error:
        choice = error.missing_cfg_file or ""
        if isinstance(choice, str) and error.options:
            group, _, name = choice.rpartition("/")
            exist = ", ".join(sorted(error.options))
            raise ConfigError(f"unknown {group} {name!r}: there is {exist}") from error
        raise ConfigError(one_line(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from error


def flags_refused(error: Exception) -> ConfigError:
    """Returns what to say where Lightning refuses flags of its Trainer."""
    return ConfigError(f"Lightning refuses the trainer's flags: {one_line(error)}")


def one_line(error: BaseException) -> str:
    """Joins a message of several lines, with its cause where that says more."""
    text = " ".join(str(error).split())
    cause = error.__cause__
    if cause is not None and str(cause) not in text:
        text += " (" + " ".join(str(cause).split("\n")[0].split()) + ")"
    return text


def uses_gpu(accelerator: str) -> bool:
    """Says whether an accelerator of :func:`check_accelerator` means a GPU here."""
    return accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def check_data_root(cfg: DictConfig, *, several: bool = False) -> None:
    """Checks that the config names a data directory.

    Args:
        cfg: with ``data``.
        several: whether it may be a list of them.

    Raises:
        ConfigError: it does not.
    """
    if OmegaConf.is_missing(cfg.data, "root"):
        raise ConfigError("data.root is not set: pass DATA_DIR=<directory of a converted data set>")
    if not several and OmegaConf.is_list(cfg.data.root):
        raise ConfigError(
            f"data.root={cfg.data.root}: only training is on several data sets; pass one of them"
        )


def check_accelerator(accelerator: str, key: str = "trainer.accelerator") -> None:
    """Checks that a GPU that is asked for exists.

    Raises:
        ConfigError: it does not.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"{key}={accelerator} asks for a GPU but torch finds none: use {key}=auto "
            "(trainer=ddp_sim for several processes), or install a driver and a CUDA build of torch"
        )


def run_entry_point(config_name: str, main: Callable[[], None]) -> None:
    """Runs a Hydra ``main`` with its command line checked first.

    Exits 2 with one line on bad input. A multirun composes its jobs itself and is not checked.
    """
    never_fail_to_print()
    end_on_sigterm()
    if is_child() or distributed.is_torchelastic_launched():
        end_with_parent()
    arguments = sys.argv[1:] = normalized(sys.argv[1:])
    if not any(argument.startswith("-") for argument in arguments):
        try:
            check_overrides(config_name, arguments)
        except UserError as error:
            fail(error)
    main()


def message(error: BaseException) -> str:
    """Returns an error's own line, without what a loader process wraps around it.

    torch raises a worker's exception anew with its whole traceback as the text; the last line of
    that is the exception as the worker saw it.
    """
    text = str(error)
    if "Original Traceback" not in text:
        return text
    last = text.strip().splitlines()[-1]
    return last.partition(": ")[2] or last


def fail(error: UserError) -> NoReturn:
    """Prints an error as one line and exits 2, or as it says; of several processes each says who.

    Secrets that a path or an address holds are not printed.
    """
    status = getattr(error, "status", 2)
    who = f" (process {rank()})" if rank() else ""
    if who and isinstance(error, DisagreementError):
        # All of them have this one: the main process says it.
        leave(0 if is_child() else status)
    print(f"error{who}: {redacted(message(error))}", file=sys.stderr)
    leave(status)


def leave(status: int) -> NoReturn:
    """Ends this process.

    One that the main process started is gone at once: what it has in hand for the others would keep
    it busy at its end for as long as a timeout of torch's lasts, while they wait for it.
    """
    if is_child():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def interrupted(run_dir: Path | None = None, *, by: str = "", status: int = 130) -> None:
    """Says what ended the run, and how to resume if it left a checkpoint.

    Args:
        run_dir: of a training; null for a program without checkpoints.
        by: name of the signal; empty for Ctrl-C.
        status: exit status.
    """
    if is_main_process():
        checkpoint = run_dir / "checkpoints" / "last.ckpt" if run_dir else None
        kept = checkpoint is not None and checkpoint.is_file()
        rest = f"; checkpoint kept in {checkpoint}, continue with RESUME={run_dir}" if kept else ""
        print(f"interrupted{f' by {by}' if by else ''}{rest}", file=sys.stderr)
    # The main process is still to end its loggers.
    sys.exit(0 if is_child() else status)


@contextmanager
def ended_well(run_dir: Callable[[], Path | None] = lambda: None) -> Iterator[None]:
    """Makes one line and an exit status of whatever ends a program that is no fault of its own.

    Exits 2 on bad input, 130 on Ctrl-C, 143 on SIGTERM, and as a process of the job that failed.

    Args:
        run_dir: gives the directory of a training; nothing for a program without checkpoints.
    """
    try:
        yield
    except Exception as error:
        known = error if isinstance(error, UserError) else _fault_of_user(error)
        if known is not None:
            fail(known)
        if is_child():
            traceback.print_exc()
            leave(1)
        raise
    except KeyboardInterrupt:
        interrupted(run_dir())
    except Terminated:
        interrupted(run_dir(), by="SIGTERM", status=143)


def _fault_of_user(error: Exception) -> UserError | None:
    """Returns what a user is told of an error of a library that is no fault of the program's."""
    if isinstance(error, InterpolationResolutionError):
        what = str(error).splitlines()[0]
        return ConfigError(f"{what}: in a value, ${{...}} refers to another key; leave it out")
    return no_room(error) or loader_error(error)


def run_guarded(run: Callable[[DictConfig], object], cfg: DictConfig) -> None:
    """Runs a program that has no checkpoints; see :func:`ended_well`."""
    with ended_well():
        run(cfg)
