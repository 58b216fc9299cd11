"""Damaged and hostile models: each is refused in one line, and no code of theirs runs."""

from __future__ import annotations

import importlib.util
import resource
from pathlib import Path

import hostile_models
import programs
import tiny
from part import Part
from trees import half_written

GOAL = 50
"""At least; all that there are, if time allows."""
MEMORY = 6_000
"""Megabytes of address space above those of the start, which no refusal needs."""
# Weights of no sense are weights all the same.
SOUND = ("content: weights not numbers", "content: card a text", "content: card name a list")


def run(part: Part) -> None:
    """Predicts two images with each of them."""
    slides = tiny.write_slides(part.work / "slides", 2)
    marker = part.work / "marker"
    models = _models(part, marker)
    names = sorted(models)
    part.rng.shuffle(names)
    part.result.goal = max(part.result.goal, len(names)) if part.result.goal >= GOAL else GOAL
    out = part.work / "out"
    # Or a model that asks for all the memory takes that of everybody else.
    limits = {resource.RLIMIT_AS: programs.address_space() + MEMORY * 2**20}
    for number, name in enumerate(names):
        if not part.has_time or number >= part.result.goal:
            break
        (part.work / "current.txt").write_text(name)
        arguments = tiny.predict_arguments(models[name], slides, out / str(number))
        ended = programs.run(
            "deepacc_lightning.predict", arguments, part.work / "run", limits=limits
        )
        part.tried()
        part.expect(not marker.exists(), f"{name}: its code ran")
        marker.unlink(missing_ok=True)
        problems = ended.problems(0, 2)
        if not part.expect(not problems, name, problems):
            continue
        part.count("refused" if ended.status else "taken")
        if not ended.status and not name.startswith(SOUND) and "flipped" not in name:
            part.fail(f"{name}: is taken for a model")
        broken = half_written(out / str(number)) if (out / str(number)).is_dir() else []
        part.expect(not broken, f"{name}: files not whole", broken)


def _models(part: Part, marker: Path) -> dict[str, Path]:
    folder = part.work / "models"
    folder.mkdir()
    sound = tiny.write_checkpoint(folder / "sound.ckpt")
    found = {
        **hostile_models.pickles(folder, marker),
        **hostile_models.configs(folder, marker),
        **hostile_models.contents(folder),
        **hostile_models.damage(sound, folder, part.rng),
        **hostile_models.archives(sound, folder),
    }
    for name in ("onnx", "onnxruntime", "openvino"):
        if importlib.util.find_spec(name) is None:
            part.note(f"exported models: {name} is not installed")
            return found
    for fmt, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        path = folder / f"sound{suffix}"
        arguments = [f"ckpt={sound}", f"format={fmt}", f"out={path}", "images=1"]
        ended = programs.run("deepacc_lightning.export", arguments, part.work / "export")
        if part.expect(not ended.problems(0), f"export to {fmt}", ended.problems(0)):
            found |= hostile_models.damage(path, folder, part.rng)
            if fmt == "onnx":
                found |= hostile_models.exports(path, folder)
    return found
