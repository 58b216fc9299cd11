"""From one image to one cell: what a detector finds, and the karyotype that it makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from deepacc_d2.cell import FIT, UNFIT, Cell, Chromosome
from deepacc_d2.checkpoint import content_of
from deepacc_d2.detection.detector import Detections, Detector, detector_of, open_model
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import View
from deepacc_d2.karyotype.fitness import Showing
from deepacc_d2.karyotype.interpret import Interpretation, KaryotypeSettings, interpret


class Predictor:
    """Predicts cells: a detector, and the karyotype of what it finds.

    Attributes:
        detector: finds the chromosomes.
        karyotype: temperature, strength of the copy-number prior and the thresholds of flags.
    """

    def __init__(self, detector: Detector, karyotype: KaryotypeSettings | None = None) -> None:
        self.detector = detector
        self.karyotype = karyotype or KaryotypeSettings()

    @property
    def name(self) -> str:
        """Of the model, for reports."""
        return self.detector.name

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
            view: of the image, where a loader has made it already.
        """
        detections = self.detector.detect(gray, view)
        found = self.interpret(detections)
        masks = self.detector.masks(gray, detections)
        unfit = bool(found.reasons)
        chromosomes = [
            Chromosome(
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                probabilities=found.probabilities[n],
                label=int(found.labels[n]),
                assigned=int(found.assigned[n]),
                confidence=float(found.confidences[n]),
                flags=tuple(found.flags[n]),
                mask=masks[n],
            )
            for n, box in ((n, detections.boxes[n]) for n in order(detections, found))
        ]
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
            view=detections.view.facts(),
            status=UNFIT if unfit else FIT,
            reasons=found.reasons,
            draft=found.karyotype if unfit else "",
        )

    def interpret(self, found: Detections) -> Interpretation:
        """Returns the karyotype of detections."""
        settings, view = self.detector.view, found.view
        # Where no spread was sought, none is missed.
        spread = view.normalized or not settings.normalize
        showing = Showing(view.zoom, settings.chromosome_size, spread)
        return interpret(found.boxes, found.probabilities, self.karyotype, showing)

    def settings(self) -> dict[str, Any]:
        """Returns what else decides the results besides the network, as plain containers."""
        return {**self.detector.settings(), "karyotype": self.karyotype.to_dict()}


def order(detections: Detections, found: Interpretation) -> list[int]:
    """Returns the chromosomes' order in a cell: by class, then from left to right.

    Unidentified (-2) and left-out ones (-1) come last, in this order.
    """
    left, classes = detections.boxes[:, 0], found.assigned
    rows = range(len(classes))
    return sorted(rows, key=lambda n: (classes[n] < 0, classes[n], left[n]))


def load_predictor(
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "32-true",
    normalize: bool = True,
    min_foreground: float | None = None,
    tta: int | None = None,
    prior_strength: float | None = None,
) -> Predictor:
    """Makes a predictor of a checkpoint or an exported model.

    >>> predictor = load_predictor(device="cpu")  # the included detector
    >>> predictor.detector.view.chromosome_size
    56.0

    Args:
        checkpoint: see :func:`~deepacc_d2.detection.detector.load_detector`, as for device and
            precision.
        device: see there.
        precision: see there.
        normalize: see there.
        min_foreground: see there.
        tta: see there.
        prior_strength: instead of the checkpoint's; 0 leaves every box its own class.

    Raises:
        DataError: the file is missing, damaged, or no detector of this project.
        ConfigError: there is no such device or precision.
    """
    network, content = open_model(checkpoint, device=device, precision=precision)
    with content_of(content["path"]):
        karyotype = KaryotypeSettings.from_dict(content.get("karyotype") or {})
    if prior_strength is not None:
        karyotype = replace(karyotype, prior_strength=prior_strength)
    detector = detector_of(
        network, content, normalize=normalize, min_foreground=min_foreground, tta=tta
    )
    return Predictor(detector, karyotype)
