"""What is saved with a run's checkpoints: config, revision, seed, versions, data."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from deepacc_d2.errors import ConfigError
from deepacc_d2.partial import resolved
from deepacc_d2.secret import redacted

PACKAGES = (
    "torch",
    "torchvision",
    "sal-detectron2",
    "pytorch-lightning",
    "hydra-core",
    "numpy",
    "opencv-python-headless",
)


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def remote_has_login(folder: Path | None = None) -> bool:
    """Whether the repository that a program is started in has a remote address with a login."""
    remotes = _git(folder or Path.cwd(), "remote", "--verbose") or ""
    return bool(redacted(remotes) != remotes)


def git_revision() -> dict[str, Any]:
    """Returns the commit of the sources and whether they differ from it; nulls outside git."""
    root = Path(__file__).resolve().parents[2]
    revision = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no") if revision else None
    return {"revision": revision, "dirty": None if status is None else bool(status)}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """Names the device that training ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def cpu_name() -> str:
    """Names the processor, as Linux does where it can be asked."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else f"{platform.processor() or platform.machine()} CPU"


def make_run_dir(out: str | Path) -> Path:
    """Creates the run directory and proves that it can be written to.

    Raises:
        ConfigError: it cannot.
    """
    path = Path(out)
    resolved(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"output directory {path} cannot be written ({error.strerror}): choose another by OUT="
        ) from error
    return path


def describe_run(**extra: Any) -> dict[str, Any]:
    """Returns the facts about this process, with ``extra`` added and without secrets."""
    record = {"command": list(sys.argv), "git": git_revision(), "versions": versions(), **extra}
    found: dict[str, Any] = redacted(record)
    return found
