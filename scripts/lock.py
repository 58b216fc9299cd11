"""Writes the lock files from their .in files: `make lock`.

Locks are resolved for every platform and Python version that the project runs on and carry the
hashes of all files of each release. They name no index: pip's own configuration says where
packages come from. The resolver (uv, pinned in requirements/lock.lock) is installed into a
temporary environment. Only the standard library may be imported here.

Releases that are locked already stay as long as the .in file allows; `make lock ARGS=--upgrade`
moves the indirect ones to their newest.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from setup_env import EXTRAS

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
# File stem: oldest Python it must install on, and whether to follow dependencies.
LOCKS = {
    "bootstrap": ("3.11", False),
    "project": ("3.11", True),
    "detectron2": ("3.10", False),  # see install_detectron2 in setup_env.py
    "lock": ("3.11", False),
}


def always_locked(text: str) -> list[str]:
    """Names of the distributions that a lock pins on every platform.

    What it pins on some only, an extra may need on all: colorama, which most packages want on
    Windows alone.
    """
    return re.findall(r"^([A-Za-z0-9][\w.-]*)==[^;\n]*$", text, flags=re.MULTILINE)


def resolve(uv: Path, stem: str, temporary: Path, options: list[str]) -> str:
    """Resolve requirements/<stem>.in, with more of uv's options, and return the lock's text.

    The lock of an optional extra holds what it needs beyond project.lock. <stem>.override, where
    there is one, says which releases to take whatever a package asks for.

    Raises:
        subprocess.CalledProcessError: the requirements contradict each other, or no network.
    """
    oldest, follow = LOCKS.get(stem, ("3.11", True))
    output = temporary / f"{stem}.lock"
    for name in (f"{stem}.in", f"{stem}.override", f"{stem}.lock"):
        if (REQUIREMENTS / name).exists():
            # The lock as well: uv prefers the releases that it finds in its output file.
            shutil.copy(REQUIREMENTS / name, temporary)
    command = [str(uv), "pip", "compile", f"{stem}.in", "--output-file", output.name, "--quiet"]
    command += ["--universal", "--python-version", oldest, "--fork-strategy", "fewest"]
    command += ["--generate-hashes", "--no-header", "--no-config", *options]
    if not follow:
        command.append("--no-deps")
    if stem in EXTRAS:
        command += ["--constraint", "project.lock"]
        locked = (temporary / "project.lock").read_text(encoding="utf-8")
        for name in always_locked(locked):
            command += ["--no-emit-package", name]
    if (temporary / f"{stem}.override").exists():
        command += ["--override", f"{stem}.override"]
    subprocess.run(command, cwd=temporary, check=True)
    text = output.read_text(encoding="utf-8")
    if "://" in text or "--index-url" in text or "--find-links" in text:
        raise ValueError(f"{stem}.lock names a place on the network or on this disk")
    return f"# Written by `make lock` from {stem}.in: change that and run it again.\n{text}"


def main() -> None:
    """Write all locks, or none where one cannot be resolved."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder)
        subprocess.run([sys.executable, "-m", "venv", str(temporary / "venv")], check=True)
        bin_folder = temporary / "venv" / "bin"
        install = [str(bin_folder / "python"), "-m", "pip", "install", "--quiet"]
        install += ["--require-hashes", "--no-deps", "-r", str(REQUIREMENTS / "lock.lock")]
        subprocess.run(install, check=True)
        stems = (*LOCKS, *EXTRAS)
        texts = {stem: resolve(bin_folder / "uv", stem, temporary, sys.argv[1:]) for stem in stems}
    for stem, text in texts.items():
        path = REQUIREMENTS / f"{stem}.lock"
        changed = not path.exists() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    main()
