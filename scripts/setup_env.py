"""Makes the project's virtual environment from the locks, and keeps it equal to them.

`python scripts/setup_env.py` does nothing when the environment is as the locks say. Otherwise it
installs what is missing, every file checked against its hash:

1. requirements/bootstrap.lock: one known pip and the build tools;
2. requirements/project.lock: all dependencies;
3. requirements/detectron2.lock: Detectron2's wheel, alone (see `install_detectron2`);
4. the locks of the optional extras that were asked for, now or ever: EXTRAS="joblib optuna";
5. this project, editable.

A stamp inside the environment, written last, says what it holds. No stamp means that an install
was interrupted, so the environment is made anew. The stamp compares contents, not times: a
`git checkout` that brings the same locks back costs nothing.

`python scripts/setup_env.py --active` does steps 3 to 5 in the environment of the Python that runs
it, for conda users (environment.yml). Only the standard library may be imported here.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ("bootstrap.lock", "project.lock", "detectron2.lock")
EXTRAS = (
    *("joblib", "optuna", "ray", "submitit", "export", "peers"),
    *("review", "browser", "worksheet", "docs"),
)
STAMP = "stamp.json"
# Apart from the stamp, which an interrupted install removes, so that the choice is not forgotten.
CHOSEN = "extras.json"

Stamp = dict[str, object]


def fail(message: str, status: int = 2) -> NoReturn:
    """Print `message` on one line of stderr and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)


def locked_names(text: str) -> list[str]:
    """Names of the distributions that a lock file's text pins."""
    return re.findall(r"^([A-Za-z0-9][\w.-]*)==", text, flags=re.MULTILINE)


def wanted_stamp(root: Path = ROOT, extras: Iterable[str] = ()) -> Stamp:
    """What the environment of the checkout at `root` must hold, with some optional extras.

    The project's part covers what an editable install depends on: the packaging tables of
    pyproject.toml and the place of the checkout (so a moved checkout is installed again).
    """
    texts = [(root / "requirements" / name).read_text(encoding="utf-8") for name in LOCKS]
    added = {
        name: (root / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
        for name in sorted(extras)
    }
    pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    tables = [
        pyproject["build-system"],
        pyproject["project"],
        pyproject["tool"]["setuptools"],
        str(root),
    ]
    return {
        "lock": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        "project": hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest(),
        "extras": {n: hashlib.sha256(text.encode()).hexdigest() for n, text in added.items()},
        "packages": sorted({n for text in (*texts, *added.values()) for n in locked_names(text)}),
    }


def parse_extras(text: str) -> list[str]:
    """The optional extras that a text names, divided by blanks or commas; stops at unknown ones."""
    names = sorted(set(re.split(r"[\s,]+", text.strip())) - {""})
    unknown = [name for name in names if name not in EXTRAS]
    if unknown:
        fail(f"EXTRAS={text}: unknown extra {unknown[0]}: there is {', '.join(EXTRAS)}")
    return names


def chosen_extras(venv: Path) -> list[str]:
    """The optional extras that an environment was ever asked to have."""
    try:
        names = json.loads((venv / CHOSEN).read_text(encoding="utf-8"))
        return [name for name in EXTRAS if name in names]
    except (OSError, ValueError, TypeError):
        return []


def read_stamp(venv: Path) -> Stamp | None:
    """The stamp of a complete and usable environment, else None."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    runs_here = Path(sys.prefix).resolve() == venv.resolve()
    replaced = runs_here and stamp.get("python") != python_version()
    if replaced or not (venv / "bin" / "python").exists():
        return None  # the Python that it was made from is gone or another version
    return dict(stamp)


def write_stamp(venv: Path, stamp: Mapping[str, object]) -> None:
    """Write the stamp in one step, so that it is never half there."""
    write_json(venv / STAMP, stamp)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file in one step."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def python_version() -> str:
    """Major and minor version of the running Python, such as "3.11"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def pip(python: str | Path, *arguments: str, what: str) -> None:
    """Run pip quietly unless someone watches, and stop with one line where it fails."""
    command = [str(python), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    if not sys.stdout.isatty():
        command.append("--quiet")
    # setuptools warns that an editable install may shadow a folder here; it is the same folder.
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    if subprocess.run(command, cwd=ROOT, env=env, check=False).returncode:
        fail(f"pip could not install {what} (its message is above); fix that and run make again")


def install_locked(python: str | Path, name: str, *arguments: str) -> None:
    """Install one lock file: exactly what it lists, each file checked against its hashes."""
    lock = str(Path("requirements") / name)
    options = ("--require-hashes", "--no-deps", *arguments, "-r", lock)
    pip(python, "install", *options, what=f"the packages of {lock}")


def install_detectron2(python: str | Path, site_packages: Path) -> None:
    """Put Detectron2's wheel into `site_packages`.

    The only wheel there is is tagged for Python 3.10, for the sake of a compiled module that
    nothing here needs and newer Pythons ignore (RoIAlign and NMS come from torchvision). Hence
    pip fetches it for 3.10, which it allows only with an explicit target; `--upgrade`
    lets it replace an earlier copy there.
    """
    options = ("--only-binary=:all:", "--python-version", "3.10", "--upgrade")
    install_locked(python, "detectron2.lock", *options, "--target", str(site_packages))


def install_locks(python: str | Path, site_packages: Path) -> None:
    """Install all three locks; where a release is there already, pip leaves it alone."""
    install_locked(python, "bootstrap.lock")
    # Source distributions are built with the tools just installed, not with unchecked newer ones.
    install_locked(python, "project.lock", "--no-build-isolation")
    install_detectron2(python, site_packages)


def install_extras(python: str | Path, extras: Iterable[str]) -> None:
    """Install the locks of optional extras, which hold what project.lock does not."""
    for name in extras:
        install_locked(python, f"{name}.lock", "--no-build-isolation")


def install_project(python: str | Path) -> None:
    """Install the checkout itself, editable, with the build tools already there."""
    options = ("--no-deps", "--no-build-isolation", "--editable", ".")
    pip(python, "install", *options, what="this project")


def create(venv: Path) -> None:
    """Make an empty environment, in place of an older one or a half-made one."""
    if venv != ROOT / ".venv" and venv.exists() and not (venv / "pyvenv.cfg").exists():
        fail(f"{venv} exists and is no virtual environment: remove it or name another VENV=")
    base = getattr(sys, "_base_executable", None) or sys.executable
    result = subprocess.run(
        [base, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        if "ensurepip" in result.stdout + result.stderr:
            fail(
                f"{base} cannot make virtual environments: install your system's package for it "
                f"(Debian, Ubuntu: python{python_version()}-venv) and run make again"
            )
        fail(f"{base} -m venv {venv} failed: {(result.stderr or result.stdout).strip()}")


def site_packages_of(venv: Path) -> Path:
    """Where the environment keeps its packages."""
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(venv)}))


@contextmanager
def only_one() -> Iterator[None]:
    """Let a second make in the same checkout wait while the first installs."""
    with (REQUIREMENTS / LOCKS[1]).open("rb") as file:
        with suppress(OSError):  # some network disks have no locks: go without
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ensure(venv: Path, extras: Iterable[str] = ()) -> None:
    """Bring `venv` to the state that the locks describe; return at once if it is there.

    The optional `extras` are added to those that it was ever asked to have.

    A conda environment is its owner's business and is used as it is. Exits with status 2 and one
    line where something cannot be installed.
    """
    if (venv / "conda-meta").is_dir():
        return
    if is_current(
        read_stamp(venv), wanted_stamp(extras=(chosen := {*chosen_extras(venv), *extras}))
    ):
        return
    with only_one():
        wanted, have = wanted_stamp(extras=chosen), read_stamp(venv)
        if not is_current(have, wanted):
            update(venv, have, wanted)


def is_current(have: Stamp | None, wanted: Stamp) -> bool:
    """Whether a stamp describes the wanted state."""
    keys = ("lock", "extras", "project")
    return have is not None and all(have.get(key, {}) == wanted[key] for key in keys)


def update(venv: Path, have: Stamp | None, wanted: Stamp) -> None:
    """Install what differs between the stamps `have` (None: everything) and `wanted`."""
    start = time.monotonic()
    shown = venv.relative_to(ROOT) if venv.is_relative_to(ROOT) else venv
    python = venv / "bin" / "python"
    done: Stamp = {"python": python_version(), **wanted}
    extras = wanted["extras"]
    assert isinstance(extras, dict)
    before = chosen_extras(venv)
    if have is None or have.get("lock") != wanted["lock"]:
        (venv / STAMP).unlink(missing_ok=True)  # incomplete from here on
    if have is None:
        print(
            f"Making {shown} with Python {python_version()}: {len(wanted_names(wanted))} pinned "
            "packages, several GB, mostly PyTorch. This happens once.",
            flush=True,
        )
        create(venv)
        write_json(venv / CHOSEN, before)
        install_locks(python, site_packages_of(venv))
    elif have.get("lock") != wanted["lock"]:
        print(f"The lock changed: updating {shown}.", flush=True)
        try:
            remove_dropped(python, have, wanted)
            install_locks(python, site_packages_of(venv))
        except SystemExit:
            # Offline, say: pip downloads and checks all files before it replaces any. What is
            # there still works, so the next run updates it instead of starting over.
            if is_whole(site_packages_of(venv)):
                write_stamp(venv, {**have, "lock": None})
            raise
    # An extra that cannot be had is not asked for again by every later make: only after this is it
    # among the chosen ones, unless it was before.
    write_stamp(venv, {**done, "project": None, "extras": None})
    had = (have or {}).get("extras") or {}
    assert isinstance(had, dict)
    install_extras(python, [name for name, lock in extras.items() if had.get(name) != lock])
    write_json(venv / CHOSEN, sorted(extras))
    write_stamp(venv, {**done, "project": None})
    install_project(python)
    write_stamp(venv, done)
    print(f"{shown} is ready ({time.monotonic() - start:.0f} s).", flush=True)


def wanted_names(stamp: Stamp) -> list[str]:
    """The distributions that a stamp lists."""
    names = stamp.get("packages")
    return [str(name) for name in names] if isinstance(names, list) else []


def is_whole(site_packages: Path) -> bool:
    """Whether no package was left half-installed: pip writes INSTALLER after a package's files."""
    return all((info / "INSTALLER").is_file() for info in site_packages.glob("*.dist-info"))


def remove_dropped(python: Path, have: Stamp, wanted: Stamp) -> None:
    """Uninstall what an earlier lock brought and this one no longer lists; nothing else."""
    dropped = sorted(set(wanted_names(have)) - set(wanted_names(wanted)))
    if dropped:
        pip(python, "uninstall", "--yes", *dropped, what="a clean environment")


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Make or update the project's environment.")
    parser.add_argument("--venv", type=Path, default=Path(os.environ.get("VENV") or ".venv"))
    parser.add_argument(
        "--active", action="store_true", help="add Detectron2 and the project to this Python"
    )
    parser.add_argument("--extras", default=os.environ.get("EXTRAS", ""))
    options = parser.parse_args()
    extras = parse_extras(options.extras)
    try:
        if options.active:
            install_detectron2(sys.executable, Path(sysconfig.get_path("purelib")))
            install_extras(sys.executable, extras)
            install_project(sys.executable)
        else:
            ensure(options.venv if options.venv.is_absolute() else ROOT / options.venv, extras)
    except KeyboardInterrupt:
        fail("interrupted; the next make installs what is missing", status=130)


if __name__ == "__main__":
    main()
