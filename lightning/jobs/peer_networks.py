"""Detectors of others, and our own, behind one face: train for so long, then detect.

Each trains by its own recipe, that of its library where that has one, from random weights. What is
the same for all: the images, the time, the threads, the size of a step.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepacc_d2.chromosomes import NUM_CLASSES
from deepacc_d2.detection.detector import load_detector
from deepacc_d2.detection.metadata import PRECISIONS
from deepacc_d2.detection.network import TorchDetector
from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.evaluation.types import ImagePrediction
from deepacc_d2.images.gray import Gray
from deepacc_lightning.core.config import quoted
from deepacc_lightning.jobs.peer_torchvision import TORCHVISION, train_torchvision

Detect = Callable[[Gray, int], ImagePrediction]

LEAST_SCORE = 0.01
"""Detections below are not asked for: they cost time and hardly change AP."""
MOST = 300
EXTRA = "make setup EXTRAS=peers"


@dataclass(frozen=True)
class Request:
    """How a peer is trained.

    Attributes:
        views: the folder of :func:`deepacc_lightning.jobs.peer_views.write_views`.
        folder: of the peer, for what it leaves.
        seconds: of training.
        batch_size: images of a step.
        image_size: longest side of a view, in pixels.
        scale: overrides of our scale, with which the views were made.
        threads: of PyTorch.
        seed: of everything.
        gpu: whether there is one to use.
    """

    views: Path
    folder: Path
    seconds: float
    batch_size: int
    image_size: int
    scale: tuple[str, ...]
    threads: int
    seed: int
    gpu: bool

    @property
    def device(self) -> str:
        """As PyTorch names it."""
        return "cuda" if self.gpu else "cpu"

    @property
    def workers(self) -> int:
        """Processes that load its images: one thread of those given is the training's own."""
        return self.threads - 1

    @property
    def side(self) -> int:
        """Of the square that LibreYOLO fits a view into, in pixels."""
        return 32 * math.ceil(self.image_size / 32)

    @property
    def train_images(self) -> int:
        """How many there are."""
        return sum(1 for _ in (self.views / "images" / "train").iterdir())


def seconds_of_one(run: Callable[[int], float], *, few: int, more: int) -> float:
    """Returns what one more step or image takes, without what it takes to start.

    Args:
        run: trains on so many, and returns the seconds that it took.
        few: for the first trial.
        more: for the second.
    """
    short, long = run(few), run(more)
    return max((long - short) / max(more - few, 1), 1e-4)


class Peer(ABC):
    """One detector.

    Args:
        name: as it is asked for.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:  # noqa: B027
        """Checks that it can be had.

        Raises:
            ConfigError: its library is not installed, or has no such detector.
        """

    @abstractmethod
    def train(self, request: Request) -> tuple[int, float]:
        """Trains it and returns how many images it was shown, and the seconds that it took.

        What is spent on finding out how much the time allows does not count.
        """

    @abstractmethod
    def load(self, request: Request) -> tuple[Detect, int]:
        """Returns the trained detector and the number of its weights."""

    def load_exports(self, request: Request) -> dict[str, Detect]:
        """Returns what OpenVINO can run of it, by precision; nothing where it cannot."""
        return {}


class OwnPeer(Peer):
    """A preset of this project, trained and loaded as users do it."""

    def train(self, request: Request) -> tuple[int, float]:
        """Trains by ``make train``, for as many steps as the time allows."""
        # The first steps are slower.
        step = seconds_of_one(
            lambda n: self._run(request, n, request.folder / f"timed{n}"), few=10, more=60
        )
        steps = max(1, int(request.seconds / max(step, 1e-3)))
        took = self._run(request, steps, request.folder / "run")
        return steps * request.batch_size, took

    def _run(self, request: Request, steps: int, out: Path) -> float:
        epochs = math.ceil(steps * request.batch_size / request.train_images)
        options = [
            *(f"experiment={self.name}", "scale=lab", *request.scale, "data=coco"),
            *(f"data.root={quoted(request.views)}", f"out={quoted(out)}", f"seed={request.seed}"),
            *(f"scale.batch_size={request.batch_size}", f"scale.max_epochs={epochs}"),
            *(f"scale.num_workers={request.workers}", f"trainer.max_steps={steps}"),
            *("logger=csv", "test=false"),
            # Our last weights count, as those of the others do.
            *("scale.check_val_every_n_epoch=1000000", "trainer.num_sanity_val_steps=0"),
        ]
        command = [sys.executable, "-m", "deepacc_lightning.train", *options]
        began = time.monotonic()
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise UserError(f"training {self.name} ended with status {done.returncode}, see above")
        return time.monotonic() - began

    def _checkpoint(self, request: Request) -> Path:
        return request.folder / "run" / "checkpoints" / "last.ckpt"

    def load(self, request: Request) -> tuple[Detect, int]:
        """Loads it as ``make evaluate`` does, with one look at each image."""
        detector = load_detector(self._checkpoint(request), device=request.device, tta=1)
        network = detector.network
        assert isinstance(network, TorchDetector)
        return detector.predict, sum(v.numel() for v in network.core.model.state_dict().values())

    def load_exports(self, request: Request) -> dict[str, Detect]:
        """Exports it by ``make export``, in all precisions that this processor has."""
        found: dict[str, Detect] = {}
        for precision in PRECISIONS:
            out = request.folder / f"exported_{precision}.xml"
            if not out.is_file():  # by an earlier race of the same weights
                words = [f"ckpt={quoted(self._checkpoint(request))}", "format=openvino"]
                words += [f"precision={precision}", f"out={quoted(out)}"]
                # What a precision costs is for `make export` to judge, of a network that is done.
                words += [f"data.root={quoted(request.views)}", "map_images=4", "max_loss=100"]
                command = [sys.executable, "-m", "deepacc_lightning.export", *words]
                if subprocess.run(command, check=False).returncode:
                    continue
            found[f"OpenVINO {precision}"] = load_detector(out, tta=1).predict
        return found


class TorchvisionPeer(Peer):
    """A Faster R-CNN of torchvision, trained by a loop of ours, as torchvision has none."""

    def train(self, request: Request) -> tuple[int, float]:
        """Trains it; see :func:`train_torchvision`."""
        began = time.monotonic()
        network, seen = train_torchvision(
            self.name,
            request.views,
            seconds=request.seconds,
            batch_size=request.batch_size,
            image_size=request.image_size,
            device=request.device,
            seed=request.seed,
        )
        torch.save(network.state_dict(), request.folder / "weights.pt")
        return seen, time.monotonic() - began

    def load(self, request: Request) -> tuple[Detect, int]:
        """Loads it for views as they are."""
        network = TORCHVISION[self.name](request.image_size)
        network.load_state_dict(torch.load(request.folder / "weights.pt", weights_only=True))
        network.eval().to(request.device)

        @torch.inference_mode()
        def detect(gray: Gray, image_id: int) -> ImagePrediction:
            image = torch.from_numpy(gray).to(request.device).float().div(255).expand(3, -1, -1)
            (found,) = network([image])
            arrays = [found[key].cpu().numpy() for key in ("boxes", "scores", "labels")]
            arrays[2] = arrays[2] - 1  # 0 is background
            return ImagePrediction(image_id, *arrays, *arrays)

        return detect, sum(p.numel() for p in network.parameters())


class LibrePeer(Peer):
    """A detector that LibreYOLO (MIT license) trains, such as ``yolo9-t`` and ``dfine-n``."""

    def _class(self) -> tuple[Any, str]:
        try:
            import libreyolo
        except ImportError as error:
            raise ConfigError(f"peer {self.name} needs LibreYOLO: {EXTRA}") from error
        family, _, size = self.name.partition("-")
        known = {
            n.removeprefix("Libre").lower(): n for n in dir(libreyolo) if n.startswith("Libre")
        }
        kind = getattr(libreyolo, known.get(family, ""), None)
        sizes = list(getattr(kind, "INPUT_SIZES", {}))
        # Those that LibreYOLO only runs have no training of their own.
        if kind is None or size not in sizes or "train" not in vars(kind):
            raise ConfigError(
                f"peer {self.name}: LibreYOLO trains no such detector"
                + (f"; sizes of {family} are {', '.join(sizes)}" if sizes else "")
            )
        return kind, size

    def check(self) -> None:
        """Checks that LibreYOLO is there and trains it."""
        self._class()

    def train(self, request: Request) -> tuple[int, float]:
        """Trains by LibreYOLO's recipe: the epochs that come nearest to the time, at least one."""
        self._class()  # imported before anything is timed
        more = min(40 * request.batch_size, request.train_images)
        image = seconds_of_one(
            lambda n: self._run(request, epochs=1, name=f"timed{n}", images=n),
            few=max(1, more // 5),
            more=more,
        )
        epochs = max(1, round(request.seconds / (image * request.train_images)))
        took = self._run(request, epochs=epochs, name="run", images=None)
        return epochs * request.train_images, took

    def _run(self, request: Request, *, epochs: int, name: str, images: int | None) -> float:
        began = time.monotonic()
        kind, size = self._class()
        torch.manual_seed(request.seed)
        model = kind(None, size=size, nb_classes=NUM_CLASSES, device=request.device)
        model.train(
            data=str(_part(request.views, images) if images else request.views / "data.yaml"),
            epochs=epochs,
            batch=request.batch_size,
            imgsz=request.side,
            device=request.device,
            workers=request.workers,
            seed=request.seed,
            project=str(request.folder),
            name=name,
            exist_ok=True,
            pretrained=None,
            val=False,
            # Its recipes are for hundreds of epochs, of which this is at most the same share.
            warmup_epochs=min(3, max(1, epochs // 10)),
            no_aug_epochs=min(15, epochs // 5),
        )
        return time.monotonic() - began

    def _weights(self, request: Request) -> Path:
        return request.folder / "run" / "weights" / "last.pt"

    def load(self, request: Request) -> tuple[Detect, int]:
        """Loads its last weights."""
        kind, size = self._class()
        model = kind(
            str(self._weights(request)), size=size, nb_classes=NUM_CLASSES, device=request.device
        )
        return self._detect(model, request), sum(p.numel() for p in model.model.parameters())

    def load_exports(self, request: Request) -> dict[str, Detect]:
        """Exports it by LibreYOLO itself, which writes fp32."""
        import libreyolo

        kind, size = self._class()
        model = kind(str(self._weights(request)), size=size, nb_classes=NUM_CLASSES, device="cpu")
        out = str(request.folder / "exported")
        try:
            path = model.export(format="openvino", imgsz=request.side, output_path=out)
            run = self._detect(libreyolo.LibreYOLO(path, device="cpu"), request)
        except Exception as error:
            print(f"{self.name} cannot be exported: {error}", flush=True)
            return {}
        return {"OpenVINO fp32": run}

    @staticmethod
    def _detect(model: Any, request: Request) -> Detect:
        def detect(gray: Gray, image_id: int) -> ImagePrediction:
            color: NDArray[np.uint8] = np.repeat(gray[..., None], 3, axis=2)
            found = model.predict(color, conf=LEAST_SCORE, imgsz=request.side, max_det=MOST)
            boxes = (found[0] if isinstance(found, list) else found).boxes
            arrays = [np.asarray(torch.as_tensor(v).cpu()) for v in (boxes.xyxy, boxes.conf)]
            arrays.append(np.asarray(torch.as_tensor(boxes.cls).cpu()).astype(np.int64))
            return ImagePrediction(image_id, *arrays, *arrays)

        return detect


def _part(views: Path, images: int) -> Path:
    """Writes a ``data.yaml`` of the first training images alone, and returns it."""
    names = sorted(path.resolve() for path in (views / "images" / "train").iterdir())[:images]
    listed = views / "timed.txt"
    listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    text = (views / "data.yaml").read_text(encoding="utf-8")
    part = views / "timed.yaml"
    part.write_text(text.replace("train: images/train", "train: timed.txt"), encoding="utf-8")
    return part


def peer_of(name: str, presets: list[str]) -> Peer:
    """Returns the peer of a name: a preset, one of torchvision's, or one of LibreYOLO's."""
    if name in presets:
        return OwnPeer(name)
    return TorchvisionPeer(name) if name in TORCHVISION else LibrePeer(name)
