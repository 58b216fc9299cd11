"""What is said of a trained polarity network: on the screen, and in its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from deepacc_d2.karyogram.orientation.labels import Sign

LICENCE = "Apache-2.0"
LICENCE_OF_REAL = (
    "Apache-2.0 for the weights as our work; the images that they were trained on have terms of "
    "their own, see data"
)


def told(signs: Sequence[Sign]) -> str:
    """Returns how the ideogram decided, as text."""
    shown = ", ".join(f"{s.name} {100 * s.agree:.0f}" for s in signs)
    left = [s.name for s in signs if not s.decided]
    lines = f"strips that the ideogram alone turns as their class is aligned, %: {shown}"
    return lines + (f"\nnot decided, learned from drawn ones: {', '.join(left)}" if left else "")


def card_of(
    options: Any, seconds: float, signs: Sequence[Sign], figures: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what a network's file says of it."""
    data, command, licence = f"{options.drawn} drawn cells", "make polarity", LICENCE
    given = f"--drawn {options.drawn} --steps {options.steps} --seed {options.seed}"
    if options.thresholds:
        given += " --thresholds"
    if options.data is not None:
        data = f"{options.images} training images of {options.data.name}, boxes and classes; {data}"
        command += " DATA=..."
        given = f"--images {options.images} {given}"
        licence = LICENCE_OF_REAL
    return {
        "name": "DeepACC-D2 polarity and centromere",
        "licence": licence,
        "data": data,
        "command": f"{command} ARGS='{given}'",
        "cpu_seconds": round(seconds),
        "signs": [asdict(sign) for sign in signs],
        "figures": dict(figures),
    }


def summary(figures: Mapping[str, Any]) -> str:
    """Returns the figures as text."""
    drawn = figures["drawn"]
    lines = [
        f"held-out drawn strips: {100 * drawn['right']:.1f} % p arm up, centromere off by "
        f"{drawn['centromere_median']:.3f} of the length (median)"
    ]
    if "real" in figures:
        real = figures["real"]
        lines.append(
            f"held-out real strips: {100 * real['like_alignment']:.1f} % as their class is "
            f"aligned, homologs agree in {100 * (real['homologs_agree'] or 0):.1f} %"
        )
    return "\n".join(lines)
