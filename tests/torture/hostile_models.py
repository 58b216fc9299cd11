"""Damaged and hostile checkpoints and exported models.

Each maker writes one file. Those that hold code would write the file ``marker`` when it runs.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import tiny
import torch

Maker = Callable[[Path, Path, Random], Path]


class _Runs:
    """Unpickled, it runs a command."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def _payloads(marker: Path) -> dict[str, Any]:
    code = f"open({str(marker)!r}, 'w').write('ran')"
    return {
        "os.system": _Runs(os.system, f"echo ran > '{marker}'"),
        "exec": _Runs(exec, code),
        "eval": _Runs(eval, code),
        "open": _Runs(open, str(marker), "w"),
        "torch.load": _Runs(torch.load, str(marker)),
        "io.open": _Runs(io.open, str(marker), "w"),
    }


def pickles(folder: Path, marker: Path) -> dict[str, Path]:
    """Writes pickles that run code, bare and in every container that torch reads."""
    made = {}
    for name, payload in _payloads(marker).items():
        for where, content in (
            ("alone", payload),
            ("beside weights", {**tiny.checkpoint_content(), "card": payload}),
            ("in the config", {"model": {}, "deepacc_config": {"model": payload}}),
        ):
            path = folder / f"{name} {where}.ckpt"
            torch.save(content, path)
            made[f"pickle {name} {where}"] = path
    for protocol in (0, 2, 5):
        path = folder / f"bare{protocol}.ckpt"
        path.write_bytes(pickle.dumps(_payloads(marker)["os.system"], protocol))
        made[f"bare pickle, protocol {protocol}"] = path
    path = folder / "legacy.ckpt"
    content = {**tiny.checkpoint_content(), "x": _payloads(marker)["exec"]}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    made["legacy format"] = path
    path = folder / "tar.ckpt"
    with tarfile.open(path, "w") as archive:
        data = pickle.dumps(_payloads(marker)["os.system"])
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    made["tar of torch 0.1"] = path
    return made


def configs(folder: Path, marker: Path) -> dict[str, Path]:
    """Writes checkpoints whose configs would call something, or are none."""
    command = {"command": f"echo ran > '{marker}'"}
    text = {"path": str(marker), "text": "ran"}
    nodes: dict[str, Any] = {
        "os.system": {"_target_": "os.system", **command},
        "a module's own os": {"_target_": "deepacc_d2.files.os.system", **command},
        "os through a model part": {"_target_": "detectron2.modeling.poolers.sys", **command},
        "subprocess": {"_target_": "subprocess.run", "args": ["touch", str(marker)]},
        "a writer of ours": {"_target_": "deepacc_d2.files.write_text", **text},
        "torch.load": {"_target_": "deepacc_d2.checkpoint.torch.load", "f": str(marker)},
        "a fetch": {"_target_": "detectron2.modeling.mmdet_wrapper.os.system", **command},
        "eval": {"_target_": "builtins.eval", "source": "1"},
        "no such part": {"_target_": "deepacc_d2.modeling.NoSuchPart"},
        "a part with other keys": {"_target_": "deepacc_d2.modeling.ChromosomeRCNN", "x": 1},
        "no detector": {"_target_": "deepacc_d2.losses.GroupInnerAdjacencyLoss"},
        "number": 3,
        "list": [],
        "text": "model",
        "number as target": {"_target_": 5},
    }
    deep: dict[str, Any] = {}
    for _ in range(1500):
        deep = {"x": deep}
    nodes["a deep nest"] = deep
    made = {}
    for name, node in nodes.items():
        content = tiny.checkpoint_content()
        content["deepacc_config"]["model"] = node
        made[f"config calls {name}"] = _save(folder / f"config {name}.ckpt", content)
    return made


def contents(folder: Path) -> dict[str, Path]:
    """Writes checkpoints that lack parts, or have others than they should."""
    sound = tiny.checkpoint_content()
    first = next(k for k, v in sound["model"].items() if v.ndim == 4)

    def weights(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        changed = {**sound, "model": dict(sound["model"])}
        change(changed["model"])
        return changed

    def config(*path: str, value: Any) -> dict[str, Any]:
        changed = {**sound, "deepacc_config": copy.deepcopy(sound["deepacc_config"])}
        node = changed["deepacc_config"]
        for key in path[:-1]:
            node = node[key]
        if value is KeyError:
            del node[path[-1]]
        else:
            node[path[-1]] = value
        return changed

    heads = ("model", "roi_heads")
    made: dict[str, Any] = {
        "a tensor": torch.zeros(3),
        "a list": [1, 2],
        "nothing": {},
        "no model": {"deepacc_config": sound["deepacc_config"]},
        "model null": {**sound, "model": None},
        "model a list": {**sound, "model": [1]},
        "config null": {**sound, "deepacc_config": None},
        "config a text": {**sound, "deepacc_config": "x"},
        "no scale": config("scale", value=KeyError),
        "no model node": config("model", value=KeyError),
        "no test_augmentations": config("scale", "test_augmentations", value=KeyError),
        "test_augmentations null": config("scale", "test_augmentations", value=None),
        "test_augmentations of texts": config("scale", "test_augmentations", value=["a", 3]),
        "no size": config("scale", "test_augmentations", value=[]),
        "size a text": config(
            "scale",
            "test_augmentations",
            value=[{"_target_": "x.ResizeToChromosomes", "chromosome_size": "large"}],
        ),
        "size of nothing": config(
            "scale",
            "test_augmentations",
            value=[{"_target_": "x.ResizeToChromosomes", "chromosome_size": 0, "max_size": 0}],
        ),
        "other classes": config(*heads, "num_classes", value=3),
        "classes a text": config(*heads, "num_classes", value="24"),
        "a huge layer": config("model", "backbone", "out_channels", value=10**9),
        "selection a number": {**sound, "selection": 5},
        "selection unknown": {**sound, "selection": {"x": 1}},
        "selection of texts": {**sound, "selection": {"iou": "half"}},
        "selection of no share": {**sound, "selection": {"iou": -4}},
        "karyotype a list": {**sound, "karyotype": [1]},
        "karyotype of texts": {**sound, "karyotype": {"temperature": "warm"}},
        "karyotype cold": {**sound, "karyotype": {"temperature": 0}},
        "card a text": {**sound, "card": "a detector"},
        "card name a list": {**sound, "card": {"name": ["a"]}},
        "a weight missing": weights(lambda m: m.pop(first)),
        "a weight too many": weights(lambda m: m.update(more=torch.zeros(1))),
        "a weight of other shape": weights(lambda m: m.update({first: torch.zeros(2, 2)})),
        "a weight a text": weights(lambda m: m.update({first: "x"})),
        "a weight null": weights(lambda m: m.update({first: None})),
        "sparse weights": weights(lambda m: m.update({first: m[first].to_sparse()})),
        "complex weights": weights(lambda m: m.update({first: m[first].to(torch.complex64)})),
        "weights not numbers": weights(_no_numbers),
    }
    return {f"content: {k}": _save(folder / f"content {k}.ckpt", v) for k, v in made.items()}


def _no_numbers(model: dict[str, Any]) -> None:
    for key, value in model.items():
        if value.is_floating_point():
            model[key] = torch.full_like(value, torch.nan)


def damage(sound: Path, folder: Path, rng: Random) -> dict[str, Path]:
    """Damages the bytes of a model file: cut, flipped, zeros, text, empty, a folder."""
    data, suffix, made = sound.read_bytes(), sound.suffix, {}

    def write(name: str, content: bytes) -> None:
        path = folder / f"{name}{suffix}"
        path.write_bytes(content)
        if suffix == ".xml":
            shutil.copyfile(sound.with_suffix(".bin"), path.with_suffix(".bin"))
        made[f"{suffix}: {name}"] = path

    write("empty", b"")
    write("text", b"<html>404</html>")
    for share in (0.1, 0.5, 0.999):
        write(f"cut at {share}", data[: int(len(data) * share)])
    for number in range(3):
        flipped = bytearray(data)
        for _ in range(40):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        write(f"flipped {number}", bytes(flipped))
    middle = len(data) // 2
    write("zeros", data[:middle] + bytes(len(data) - middle))
    path = folder / f"folder{suffix}"
    path.mkdir()
    made[f"{suffix}: a folder"] = path
    made[f"{suffix}: none"] = folder / f"none{suffix}"
    return made


def archives(sound: Path, folder: Path) -> dict[str, Path]:
    """Writes zip files that are no checkpoints, or claim more than they hold."""
    made = {}
    path = folder / "zip.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    made["a zip file"] = path
    path = folder / "names.ckpt"
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w") as archive:
        for name in source.namelist():
            archive.writestr(f"../../{name}", source.read(name))
    made["a zip that climbs out"] = path
    path = folder / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(300_000_000))
    made["a zip bomb"] = path
    return made


def exports(sound: Path, folder: Path) -> dict[str, Path]:
    """Writes ONNX files whose descriptions, inputs and weights are not those of an export."""
    import onnx

    made = {}

    def write(name: str, change: Callable[[Any], object]) -> None:
        model = onnx.load(str(sound))
        change(model)
        path = folder / f"onnx {name}.onnx"
        path.write_bytes(model.SerializeToString())
        made[f".onnx: {name}"] = path

    def told(**values: Any) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            entry = next(p for p in model.metadata_props if p.key == "deepacc_d2")
            found = json.loads(entry.value)
            entry.value = json.dumps({**found, **values})

        return change

    def raw(model: Any) -> None:
        next(p for p in model.metadata_props if p.key == "deepacc_d2").value = "{"

    def outside(model: Any) -> None:
        weight = model.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="../../../../etc/passwd")

    def rename(model: Any) -> None:
        model.graph.input[0].name = "picture"

    write("no description", lambda model: model.ClearField("metadata_props"))
    write("broken description", raw)
    write("version text", told(version="new"))
    write("classes of a text", told(classes="abc"))
    write("divisibility of nothing", told(size_divisibility=0))
    write("divisibility huge", told(size_divisibility=10**9))
    write("augmentations null", told(test_augmentations=None))
    write("augmentations of texts", told(test_augmentations=["a"]))
    write("augmentations a number", told(test_augmentations=7))
    write("selection a list", told(selection=[1]))
    write("karyotype a text", told(karyotype="warm"))
    write("card a number", told(card=3))
    write("precision a list", told(precision=["fp32"]))
    write("weights elsewhere", outside)
    write("another input", rename)
    write("no outputs", lambda model: model.graph.ClearField("output"))
    return made


def _save(path: Path, content: Any) -> Path:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    torch.save(content, path)
    sys.setrecursionlimit(limit)
    return path
