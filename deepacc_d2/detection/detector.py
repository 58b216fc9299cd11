"""From a gray image to detections: view, network, second look, choice of boxes.

Every job that detects uses :class:`Detector`, whatever runs its network. Images are uint8 (H, W),
boxes XYXY; P proposals, N chromosomes that are kept of them. Cell context is part of the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from deepacc_d2.cell import Mask
from deepacc_d2.checkpoint import build_from_checkpoint, content_of, read_checkpoint
from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.detection.masks import find_masks
from deepacc_d2.detection.network import Raw, TorchDetector, least_score
from deepacc_d2.detection.runners import is_exported, load_runner
from deepacc_d2.detection.select import (
    LEAST_SCORE,
    TURNS,
    SelectionSettings,
    decode,
    select,
)
from deepacc_d2.detection.turns import merged, turned, turned_back
from deepacc_d2.errors import ConfigError, DataError
from deepacc_d2.evaluation.types import ImagePrediction
from deepacc_d2.images.spread import Gray
from deepacc_d2.images.view import View, ViewSettings, make_view, second_view
from deepacc_d2.modeling import InstanceMasks

DEFAULT_CHECKPOINT = Path(__file__).resolve().parent.parent / "weights" / "deepacc.ckpt"
"""The DeepACC that is shipped; see docs/MODEL_CARD.md."""

PRECISIONS = {
    "32-true": torch.float32,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}

Network = Callable[[Gray], Raw]

# Probability of being any chromosome, of a box that has a say in how large they are.
SURE = 0.5
# A second look that finds fewer than this share of the first one's sure boxes does not count.
FAR_FEWER = 0.75


class Proposals(NamedTuple):
    """All that the network says of an image.

    Attributes:
        boxes: (P, 4) float32 in pixels of the view.
        probabilities: (P, 25) float32, not calibrated, the last of no chromosome.
        view: what the network was shown.
    """

    boxes: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    view: View


class Detections(NamedTuple):
    """The chromosomes of an image, the surest first.

    Attributes:
        boxes: (N, 4) float64 in pixels of the image, clipped to it.
        probabilities: (N, 25) float64, not calibrated, the last of no chromosome.
        rows: (N,) int64, the proposal that each is.
        view: what the network was shown.
    """

    boxes: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    rows: NDArray[np.int64]
    view: View


@dataclass(frozen=True, eq=False)
class Detector:
    """Finds and classifies the chromosomes of an image, each box by itself.

    Attributes:
        network: gray image of the view in, boxes (P, 4) and probabilities (P, 25) out.
        view: how images are brought to what the network was trained on.
        selection: which proposals are kept.
        name: of the model, for reports.
        least_score: see :func:`~deepacc_d2.detection.select.decode`.
    """

    network: Network
    view: ViewSettings
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    name: str = ""
    least_score: float = LEAST_SCORE

    def propose(self, gray: Gray, view: View | None = None) -> Proposals:
        """Finds the view of an image in which chromosomes have the right size, and looks at it.

        Args:
            gray: uint8 (H, W).
            view: of it, where a loader has made it already.
        """
        return self.look_again(self.first_look(gray, view))

    def first_look(self, gray: Gray, view: View | None = None) -> Proposals:
        """Runs the network, and once more where its boxes say that chromosomes have another size.

        See :meth:`propose` for the arguments.
        """
        first = self.look(view or make_view(gray, self.view))
        sure = self.sure(first)
        again = second_view(gray, first.view, first.boxes[sure], self.view)
        if again is None:
            return first
        second = self.look(again)
        return first if len(self.sure(second)) < FAR_FEWER * len(sure) else second

    def look(self, view: View) -> Proposals:
        """Runs the network on one view."""
        return Proposals(*self.network(view.image), view)

    def look_again(self, first: Proposals) -> Proposals:
        """Looks at the same view turned and mirrored, ``selection.tta`` looks with the first one.

        Returns:
            The average of all looks; the first one itself if there are no others.
        """
        if self.selection.tta == 1:
            return first
        image = first.view.image
        looks: list[Raw] = [(first.boxes, first.probabilities)]
        for turn in TURNS[1 : self.selection.tta]:
            boxes, probabilities = self.network(turned(image, turn))
            looks.append((turned_back(boxes, turn, image.shape), probabilities))
        return Proposals(*merged(looks, self.selection), first.view)

    def sure(self, found: Proposals) -> NDArray[np.int64]:
        """Returns the rows of the kept proposals that are surely chromosomes."""
        rows = select(found.boxes, found.probabilities, self.selection)
        return rows[1.0 - found.probabilities[rows, NUM_CLASSES] >= SURE]

    def detect(self, gray: Gray, view: View | None = None) -> Detections:
        """Returns the chromosomes of an image; see :meth:`propose` for the arguments."""
        return self.choose(gray, self.propose(gray, view))

    def choose(self, gray: Gray, found: Proposals) -> Detections:
        """Returns the chromosomes among the proposals of an image."""
        rows = select(found.boxes, found.probabilities, self.selection)
        placed = to_image(gray, found.view, found.boxes[rows])
        return Detections(placed, found.probabilities[rows].astype(np.float64), rows, found.view)

    @property
    def instance_masks(self) -> InstanceMasks | None:
        """What cuts chromosomes out of their boxes; exported models have none."""
        return getattr(self.network, "instance_masks", None)

    def masks(self, gray: Gray, found: Detections) -> list[Mask | None]:
        """Returns the masks of detections, None where the model has none or a box shows nothing."""
        network = self.instance_masks
        if network is None:
            return [None] * len(found.boxes)
        return find_masks(network, found.view, found.boxes, gray)

    def predict(self, gray: Gray, image_id: int, view: View | None = None) -> ImagePrediction:
        """Returns what the metrics take of an image.

        Args:
            gray: uint8 (H, W).
            image_id: of the ground truth.
            view: see :meth:`propose`.
        """
        boxes, probabilities, shown = self.propose(gray, view)
        return decode(
            image_id,
            boxes,
            probabilities,
            self.selection,
            placed=to_image(gray, shown, boxes),
            least_score=self.least_score,
        )

    def to(self, device: str | torch.device) -> None:
        """Moves the network, if PyTorch runs it."""
        if isinstance(self.network, TorchDetector):
            self.network.to(device)

    def settings(self) -> dict[str, Any]:
        """Returns what decides the results besides the network, as plain containers."""
        return {"view": asdict(self.view), "selection": asdict(self.selection)}


def to_image(gray: Gray, view: View, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns boxes (n, 4) of a view in pixels of its image, clipped to it."""
    height, width = gray.shape
    placed: NDArray[np.float64] = np.clip(
        view.to_original(boxes), 0, [width, height, width, height]
    )
    return placed


def load_detector(
    checkpoint: str | Path | None = None,
    *,
    device: str = "auto",
    precision: str = "32-true",
    normalize: bool = True,
    min_foreground: float | None = None,
    tta: int | None = None,
) -> Detector:
    """Makes a detector of a checkpoint or an exported model.

    Args:
        checkpoint: a ``.ckpt`` of this project, an exported ``.onnx`` or ``.xml``, or None for the
            shipped DeepACC.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        normalize: find the spread and bring it to the size and tone of training.
        min_foreground: instead of the checkpoint's, see :class:`SelectionSettings`.
        tta: instead of the checkpoint's, see there.

    Raises:
        DataError: the file is missing, damaged, or no detector of this project.
        ConfigError: there is no such device or precision.
    """
    return detector_of(
        *open_model(checkpoint, device=device, precision=precision),
        normalize=normalize,
        min_foreground=min_foreground,
        tta=tta,
    )


def open_model(
    checkpoint: str | Path | None, *, device: str, precision: str
) -> tuple[Network, Mapping[str, Any]]:
    """Returns what runs a network, and what its file holds besides the weights.

    Args:
        checkpoint: see :func:`load_detector`, as for the others.
        device: not of exported models, which run on the CPU.
        precision: not of exported models, whose files say it.
    """
    path = Path(DEFAULT_CHECKPOINT if checkpoint is None else checkpoint)
    if is_exported(path):
        runner = load_runner(path)
        return runner, {"path": path, **runner.metadata}
    target = check_device(device)
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision}: choose {', '.join(PRECISIONS)}")
    content = read_checkpoint(path)
    with content_of(path):
        nodes = content["deepacc_config"]["scale"]["test_augmentations"]
    model = build_from_checkpoint(content, path)
    network = TorchDetector(model, device=target, dtype=PRECISIONS[precision])
    del content["model"]
    return network, {**content, "test_augmentations": nodes, "path": path}


def detector_of(
    network: Network,
    content: Mapping[str, Any],
    *,
    normalize: bool = True,
    min_foreground: float | None = None,
    tta: int | None = None,
) -> Detector:
    """Makes a detector of what :func:`open_model` returns.

    Raises:
        DataError: the file has settings of another version.
        ConfigError: nothing in it says a size, or an option is out of its range.
    """
    path = content["path"]
    with content_of(path):
        try:
            selection = SelectionSettings(**(content.get("selection") or {}))
        except TypeError as error:
            raise DataError(
                f"checkpoint {path} has selection settings of another version"
            ) from error
        view = ViewSettings.from_augmentations(content["test_augmentations"], normalize=normalize)
        name = str((content.get("card") or {}).get("name") or path.name)
    given: dict[str, Any] = {"min_foreground": min_foreground, "tta": tta}
    selection = replace(selection, **{k: v for k, v in given.items() if v is not None})
    return Detector(
        network,
        view=view,
        selection=selection,
        name=name,
        least_score=(
            least_score(network.core.model) if isinstance(network, TorchDetector) else LEAST_SCORE
        ),
    )


def model_hash(path: Path) -> str:
    """Returns the hash of a model's files, hexadecimal: a name says nothing of the weights.

    OpenVINO's weights are in a file next to the one that is named.
    """
    digest = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


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
