"""From one image to one cell: view, network, choice of boxes, karyotype."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepacc_d2.cell import FIT, UNFIT, Cell, Chromosome
from deepacc_d2.checkpoint import build_from_checkpoint, read_checkpoint
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.detection.network import Raw, TorchDetector
from deepacc_d2.detection.select import SelectionSettings, select
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import View, ViewSettings, make_view, second_view
from deepacc_d2.karyotype.fitness import Showing
from deepacc_d2.karyotype.interpret import KaryotypeSettings, interpret

DEFAULT_CHECKPOINT = Path(__file__).resolve().parent.parent / "weights" / "deepacc.ckpt"
"""The DeepACC that is shipped; see docs/MODEL_CARD.md."""

EXPORTED = (".onnx", ".xml")
PRECISIONS = {
    "32-true": torch.float32,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}

Detector = Callable[[Gray], Raw]

# Probability of being any chromosome, of a box that has a say in how large they are.
SURE = 0.5
# A second look that finds fewer than this share of the first one's sure boxes does not count.
FAR_FEWER = 0.75


class Predictor:
    """Predicts cells; whatever runs the network.

    Attributes:
        detector: gray image of the view in, boxes (P, 4) and probabilities (P, 25) out.
        view: how images are brought to what the network was trained on.
        selection: which proposals are kept.
        karyotype: temperature, strength of the copy-number prior and the thresholds of flags.
        name: of the model, for reports.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        view: ViewSettings,
        selection: SelectionSettings | None = None,
        karyotype: KaryotypeSettings | None = None,
        name: str = "",
    ) -> None:
        self.detector = detector
        self.view = view
        self.selection = selection or SelectionSettings()
        self.karyotype = karyotype or KaryotypeSettings()
        self.name = name

    def proposals(
        self, gray: Gray, view: View | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], View]:
        """Detects, and once more where the boxes say that chromosomes have another size.

        Args:
            gray: uint8 (H, W).
            view: of it, where a loader has made it already.

        Returns:
            Boxes (P, 4) in pixels of the view, uncalibrated probabilities (P, 25), and the view
            that they were found on: the one given, or a second one.
        """
        view = view or make_view(gray, self.view)
        boxes, probabilities = self.detector(view.image)
        sure = self._sure(boxes, probabilities)
        again = second_view(gray, view, boxes[sure], self.view)
        if again is None:
            return boxes, probabilities, view
        more, theirs = self.detector(again.image)
        if len(self._sure(more, theirs)) < FAR_FEWER * len(sure):
            return boxes, probabilities, view
        return more, theirs, again

    def _sure(
        self, boxes: NDArray[np.float32], probabilities: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Returns the rows of the kept proposals that are surely chromosomes."""
        rows = select(boxes, probabilities, self.selection)
        return rows[1.0 - probabilities[rows, NUM_CLASSES] >= SURE]

    def raw(
        self, gray: Gray, view: View | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], View]:
        """Detects without interpreting.

        Args:
            gray: uint8 (H, W).
            view: see :meth:`proposals`.

        Returns:
            Boxes (N, 4) in pixels of the image, uncalibrated probabilities (N, 25), and the view
            that they were found on.
        """
        boxes, probabilities, view = self.proposals(gray, view)
        rows = select(boxes, probabilities, self.selection)
        placed = view.to_original(boxes[rows])
        height, width = gray.shape
        placed = np.clip(placed, 0, [width, height, width, height])
        return placed, probabilities[rows].astype(np.float64), view

    def cell(
        self,
        gray: Gray,
        *,
        name: str = "image",
        path: str = "",
        case_id: str | None = None,
        view: View | None = None,
    ) -> Cell:
        """Predicts one cell.

        Args:
            gray: uint8 (H, W).
            name: of the cell.
            path: of its file.
            case_id: of its case.
            view: see :meth:`raw`.
        """
        boxes, probabilities, view = self.raw(gray, view)
        found = interpret(boxes, probabilities, self.karyotype, self._showing(view))
        unfit = bool(found.reasons)
        chromosomes = [
            Chromosome(
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                probabilities=found.probabilities[n],
                label=int(found.labels[n]),
                assigned=int(found.assigned[n]),
                confidence=float(found.confidences[n]),
                flags=tuple(found.flags[n]),
            )
            for n, box in enumerate(boxes)
        ]
        # Unidentified (-2) and left-out ones (-1) come last, in this order.
        chromosomes.sort(key=lambda c: (not c.placed, c.assigned, c.box[0]))
        height, width = gray.shape
        return Cell(
            name=name,
            path=path,
            width=width,
            height=height,
            chromosomes=chromosomes,
            karyotype="" if unfit else found.karyotype,
            karyotype_by_box="" if unfit else found.karyotype_by_box,
            confidence=float(found.confidence),
            flags=tuple(found.cell_flags),
            case_id=case_id,
            view={
                "zoom": round(view.zoom, 4),
                "crop": [int(v) for v in view.crop],
                "inverted": bool(view.inverted),
                "normalized": bool(view.normalized),
                "note": view.note,
            },
            status=UNFIT if unfit else FIT,
            reasons=found.reasons,
            draft=found.karyotype if unfit else "",
        )

    def _showing(self, view: View) -> Showing:
        """Returns how a view showed its image; where no spread was sought, none is missed."""
        spread = view.normalized or not self.view.normalize
        return Showing(view.zoom, self.view.chromosome_size, spread)

    def settings(self) -> dict[str, Any]:
        """Returns what else decides the results besides the network, as plain containers."""
        view, chosen = self.view, self.selection
        return {
            "view": {name: getattr(view, name) for name in view.__dataclass_fields__},
            "selection": {name: getattr(chosen, name) for name in chosen.__dataclass_fields__},
            "karyotype": self.karyotype.to_dict(),
        }


def load_predictor(
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "32-true",
    normalize: bool = True,
    min_foreground: float | None = None,
    prior_strength: float | None = None,
) -> Predictor:
    """Makes a predictor of a checkpoint or an exported model.

    Args:
        checkpoint: a ``.ckpt`` of ours, an exported ``.onnx`` or ``.xml``, or None for the shipped
            DeepACC.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        normalize: find the spread and bring it to the size and tone of training.
        min_foreground: instead of the checkpoint's, see :class:`SelectionSettings`.
        prior_strength: instead of the checkpoint's; 0 leaves every box its own class.

    Raises:
        DataError: the file is missing, damaged, or no detector of ours that predicts.
        ConfigError: there is no such device or precision.
    """
    path = Path(DEFAULT_CHECKPOINT if checkpoint is None else checkpoint)
    detector, told = _load(path, device, precision)
    view = ViewSettings.from_augmentations(told["test_augmentations"], normalize=normalize)
    selection = _selection(told.get("selection") or {}, path)
    if min_foreground is not None:
        selection = replace(selection, min_foreground=min_foreground)
    karyotype = KaryotypeSettings.from_dict(told.get("karyotype") or {})
    if prior_strength is not None:
        karyotype = replace(karyotype, prior_strength=prior_strength)
    name = str((told.get("card") or {}).get("name") or path.name)
    return Predictor(detector, view=view, selection=selection, karyotype=karyotype, name=name)


def _load(path: Path, device: str, precision: str) -> tuple[Detector, Mapping[str, Any]]:
    """Returns what runs the network, and what its file tells beside the weights."""
    if path.suffix.lower() in EXPORTED:
        from deepacc_d2.detection.runners import load_runner

        runner = load_runner(path)
        return runner, dict(runner.metadata)
    target = check_device(device)
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision}: choose {', '.join(PRECISIONS)}")
    content = read_checkpoint(path)
    nodes = content["deepacc_config"]["scale"]["test_augmentations"]
    detector = TorchDetector(
        build_from_checkpoint(content, path), device=target, dtype=PRECISIONS[precision]
    )
    return detector, {**content, "test_augmentations": nodes}


def model_hash(path: Path) -> str:
    """Returns the hash of a model's files, hexadecimal: a name tells nothing of the weights.

    OpenVINO's weights lie in a file beside the one that is named.
    """
    digest = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _selection(found: dict[str, Any], path: Path) -> SelectionSettings:
    try:
        return SelectionSettings(**found)
    except TypeError as error:
        raise DataError(f"checkpoint {path} has selection settings of another version") from error


def check_device(device: str) -> str:
    """Returns the torch device that a name means.

    Raises:
        ConfigError: there is none such here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device} is unknown: use auto, cpu or cuda") from error
    if kind.type == "cuda" and (
        not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()
    ):
        raise ConfigError(
            f"device={device} asks for a GPU that torch does not find: use device=auto or cpu"
        )
    if kind.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={device} is not supported: use auto, cpu or cuda")
    return device
