"""``make export``: a checkpoint's detector as one file for ONNX Runtime or OpenVINO, checked."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import hydra
from omegaconf import DictConfig
from tqdm import tqdm

from deepacc_d2.detection.detector import Detector, detector_of, open_model
from deepacc_d2.detection.export.calibration_images import Split, drawn
from deepacc_d2.detection.export.parity import Parity, compare, map50
from deepacc_d2.detection.export.quantize import quantize
from deepacc_d2.detection.export.write import read_openvino, write_onnx, write_openvino
from deepacc_d2.detection.metadata import PRECISIONS, describe
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.detection.runners import is_exported, load_runner, require
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import ViewSettings, make_view
from deepacc_d2.sole_use import sole_use
from deepacc_lightning.core.cli import check_data_root, run_entry_point, run_guarded
from deepacc_lightning.core.config import config_dir, register_resolvers
from deepacc_lightning.core.run_info import make_run_dir
from deepacc_lightning.train import quiet

register_resolvers()

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with the checkpoint run by PyTorch.

    Attributes:
        path: of the ``.onnx`` or ``.xml`` file.
        parity: with PyTorch in float32.
        map50: of PyTorch and of the export, in percent; None where it was not measured.
    """

    path: Path
    parity: Parity
    map50: tuple[float, float] | None


def check_choice(cfg: DictConfig) -> None:
    """Checks format and precision, and that what they need is installed.

    Raises:
        ConfigError: one is unknown, they do not go together, or a package is missing.
    """
    if cfg.format not in SUFFIXES:
        raise ConfigError(f"FORMAT={cfg.format} is unknown: choose {' or '.join(SUFFIXES)}")
    if cfg.precision not in PRECISIONS:
        raise ConfigError(f"PRECISION={cfg.precision} is unknown: choose {', '.join(PRECISIONS)}")
    if cfg.format == "onnx" and cfg.precision != "fp32":
        raise ConfigError(
            f"PRECISION={cfg.precision} is of FORMAT=openvino; ONNX files are written in fp32"
        )
    for key in ("images", "calibration"):
        if cfg[key] < 1:
            raise ConfigError(f"{key}={cfg[key]}: give at least 1")
    require(*PACKAGES[cfg.format], *(("nncf",) if cfg.precision == "int8" else ()))


def output_path(cfg: DictConfig) -> Path:
    """Returns the path of the file to write; its folder is made.

    Raises:
        ConfigError: its suffix is another format's, it exists, or it cannot be written to.
    """
    suffix, checkpoint = SUFFIXES[cfg.format], Path(cfg.ckpt).absolute()
    name = f"{checkpoint.stem}-{cfg.precision}{suffix}"
    if cfg.out is None:
        folder = checkpoint.parent
        path = (folder.parent if folder.name == "checkpoints" else folder) / "export" / name
    elif Path(cfg.out).suffix in (*SUFFIXES.values(), ".bin") and not Path(cfg.out).is_dir():
        path = Path(cfg.out).absolute()
        if path.suffix != suffix:
            raise ConfigError(f"OUT={cfg.out}: FORMAT={cfg.format} writes a {suffix} file")
    else:
        path = Path(cfg.out).absolute() / name
    if not cfg.overwrite and any(p.exists() for p in files_of(path)):
        raise ConfigError(f"{path} exists: choose another OUT, or pass ARGS=overwrite=true")
    make_run_dir(path.parent)
    return path


def files_of(path: Path) -> list[Path]:
    """Returns the files of an exported model: OpenVINO's weights are next to it."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def run(cfg: DictConfig) -> Exported:
    """Exports, checks, and only then puts the file in its place.

    Raises:
        UserError: bad input, or an export that is not what the checkpoint is.
    """
    quiet()
    check_choice(cfg)
    check_data_root(cfg)
    if is_exported(cfg.ckpt):
        raise ConfigError(f"CKPT={cfg.ckpt} is exported already: give a checkpoint")
    network, content = open_model(cfg.ckpt, device="cpu", precision="32-true")
    assert isinstance(network, TorchDetector)
    # The network is compared look by look.
    reference = detector_of(network, content, tta=1)
    core = network.core
    metadata = describe(
        dict(content), cfg.ckpt, size_divisibility=core.size_divisibility, precision=cfg.precision
    )
    if reference.instance_masks is not None:
        say("the checkpoint's masks are left out: karyograms of the export are cut by thresholds")
    val = None if cfg.data.root is None else Split(cfg.data.root, "val")
    calibration: list[Gray] = []
    if cfg.precision == "int8":
        calibration = calibration_images(cfg, reference.view)
    path = output_path(cfg)
    with (
        sole_use(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder,
    ):
        made = Path(folder) / path.name
        onnx = made.with_suffix(".onnx")
        say(f"tracing {cfg.ckpt}")
        write_onnx(core, onnx, metadata)
        if cfg.format == "openvino":
            model = read_openvino(onnx)
            if calibration:
                say(f"quantizing on {len(calibration)} images")
                model = quantize(model, calibration, metadata["size_divisibility"])
            write_openvino(model, made, metadata)
        runner = load_runner(made)
        exported = replace(reference, network=runner)
        images = [*val.take(cfg.images)] if val else drawn(cfg.images)
        parity = check_parity(reference, exported, images, exact=cfg.precision == "fp32")
        maps = None
        if cfg.precision != "fp32":
            maps = check_map(reference, exported, val, cfg)
        del runner, exported  # it may hold the file open
        for file in files_of(made):
            file.replace(path.with_name(file.name))
    size = sum(file.stat().st_size for file in files_of(path)) / 2**20
    print(f"exported         {path} ({size:.1f} MiB)", flush=True)
    return Exported(path, parity, maps)


def say(text: str) -> None:
    """Prints what is being done."""
    print(text, flush=True)


def calibration_images(cfg: DictConfig, view: ViewSettings) -> list[Gray]:
    """Returns views of what int8 is calibrated on: images of the train split, or drawn ones."""
    if cfg.data.root is None:
        say("int8 is calibrated on drawn metaphases: pass DATA= to take real ones")
        images = drawn(cfg.calibration)
    else:
        images = [*Split(cfg.data.root, "train").take(cfg.calibration)]
    return [make_view(gray, view).image for gray in images]


def check_parity(
    reference: Detector, exported: Detector, images: Sequence[Gray], *, exact: bool
) -> Parity:
    """Compares with PyTorch on the same views and prints the figures.

    Args:
        reference: PyTorch in float32.
        exported: the same detector with the exported network.
        images: to compare on, uint8 (H, W).
        exact: whether they must differ by rounding alone.

    Raises:
        DataError: they differ by more.
    """
    looks = [reference.propose(gray) for gray in tqdm(images, "parity", leave=False)]
    raw = [(look[:2], exported.network(look.view.image)) for look in looks]
    settings = reference.selection
    parity = sum((compare(a, b, settings) for a, b in raw), Parity())
    if not parity.chromosomes:
        # A model that knows no such images still has proposals to compare.
        settings = replace(settings, min_foreground=0.0)
        parity = sum((compare(a, b, settings) for a, b in raw), Parity())
    say(f"against PyTorch  {parity}")
    if exact and not parity.same:
        raise DataError(
            "the export does not give what PyTorch gives (see above); nothing was written: please "
            "report it with the checkpoint's config"
        )
    return parity


def check_map(
    reference: Detector, exported: Detector, val: Split | None, cfg: DictConfig
) -> tuple[float, float] | None:
    """Measures what a lower precision costs on a data set's val split, and prints it.

    Raises:
        DataError: more than ``max_loss`` points of mAP.
    """
    if val is None:
        say(f"accuracy         not measured for {cfg.precision}: pass DATA= to have it checked")
        return None
    part = val.take(cfg.map_images)
    before, after = (
        map50(detector, tqdm(part, f"mAP of {name}", leave=False), part.coco)
        for detector, name in ((reference, "PyTorch"), (exported, cfg.precision))
    )
    say(f"map50_max        {before:.2f} fp32, {after:.2f} {cfg.precision}, {len(part)} images")
    if not after >= before - cfg.max_loss:
        raise DataError(
            f"{cfg.precision} loses {before - after:.2f} points of mAP, more than max_loss="
            f"{cfg.max_loss}; nothing was written: calibrate on images like yours (DATA=, "
            "ARGS=calibration=300), or take PRECISION=bf16 or fp32"
        )
    return before, after


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="export")
def main(cfg: DictConfig) -> None:
    """Entry point; exits 2 on bad input and 130 on Ctrl-C, with one line each."""
    run_guarded(run, cfg)


if __name__ == "__main__":
    run_entry_point("export", main)
