"""The network as one function of an image, in the form that is run, exported and compared.

Shapes: H x W pixels of the network's input, P proposals, K = 24 classes, column K = no chromosome.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.structures import ImageList
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from deepacc_d2.detection.select import LEAST_SCORE
from deepacc_d2.errors import DataError
from deepacc_d2.images.spread import Gray
from deepacc_d2.modeling.instance_masks import InstanceMasks
from deepacc_d2.modeling.meta_arch import ChromosomeRCNN, ChromosomeRetinaNet

Raw = tuple[NDArray[np.float32], NDArray[np.float32]]


class DetectorCore(nn.Module):
    """Proposals of one image with their class probabilities, before any NMS over them.

    Unlike Detectron2's inference this keeps the whole probability vector of each proposal, which
    calibration and the assignment of a cell need, and takes and returns plain tensors only.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wraps a detector.

        Raises:
            DataError: it is none of this project's.
        """
        super().__init__()
        if not isinstance(model, ChromosomeRCNN | ChromosomeRetinaNet):
            raise DataError(f"a {type(model).__name__} is no detector of this project")
        self.model = model.eval()

    @property
    def size_divisibility(self) -> int:
        """What height and width of the image must be multiples of."""
        return max(1, int(self.model.backbone.size_divisibility))

    def normalize(self, image: Tensor, size: tuple[int, int] | None = None) -> ImageList:
        """Returns gray levels (1, 1, H, W) as the model's layers take them; see :meth:`forward`."""
        pixels = (image - self.model.pixel_mean) / self.model.pixel_std
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return ImageList(pixels, [size or (image.shape[-2], image.shape[-1])])

    def forward(self, image: Tensor, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Detects.

        Args:
            image: (1, 1, H, W) float32 gray levels, 0 to 255; H and W are multiples of
                :attr:`size_divisibility`.
            size: height and width of what is no padding, to which proposals are clipped; all of
                it by default.

        Returns:
            Boxes (P, 4), XYXY in pixels of the image, each regressed for its proposal's most
            probable class, and probabilities (P, K + 1), both float32.
        """
        (found,) = self.model.proposals(self.normalize(image, size))
        return found.pred_boxes.tensor, found.probabilities


def least_score(model: nn.Module) -> float:
    """Returns the class score up to which a model's boxes are left out of average precision."""
    heads = getattr(model, "roi_heads", None)
    owner = model if heads is None else heads.box_predictor
    return float(getattr(owner, "test_score_thresh", LEAST_SCORE))


def pad(image: Gray, multiple: int) -> Gray:
    """Returns the image, padded at its right and bottom to multiples of a number of pixels.

    The border is repeated: an edge of another gray would look like a chromosome's.
    """
    bottom, right = -image.shape[0] % multiple, -image.shape[1] % multiple
    return np.pad(image, ((0, bottom), (0, right)), mode="edge")


class TorchDetector:
    """A detector run by PyTorch: gray image in, boxes and probabilities out.

    Runners of exported models have the same face.

    Attributes:
        as_in_training: pad with the mean gray level and clip proposals to the image, as
            Detectron2's inference does while a model is trained, instead of repeating the border.
    """

    as_in_training = False

    def __init__(
        self, model: nn.Module, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """Puts a model on a device.

        Args:
            model: see :class:`DetectorCore`.
            device: a torch device.
            dtype: float32, or bfloat16 or float16 for autocast.
        """
        self.core = DetectorCore(model).to(memory_format=torch.channels_last)
        self.dtype = dtype
        self.to(device)

    @property
    def instance_masks(self) -> InstanceMasks | None:
        """What cuts chromosomes out of their boxes, None where the model has none."""
        masks: InstanceMasks | None = self.core.model.instance_masks
        return masks

    def to(self, device: str | torch.device) -> None:
        """Moves the model."""
        self.device = torch.device(device)
        self.core.to(self.device)

    def tensor(self, image: Gray) -> Tensor:
        """Returns a gray image uint8 (H, W) padded, (1, 1, H', W') float32, on the device."""
        multiple = self.core.size_divisibility
        if self.as_in_training:
            pixels = torch.from_numpy(np.ascontiguousarray(image))[None, None]
            bottom, right = -image.shape[0] % multiple, -image.shape[1] % multiple
            mean = float(self.core.model.pixel_mean.flatten()[0])
            return F.pad(pixels.to(self.device).float(), (0, right, 0, bottom), value=mean)
        padded = np.ascontiguousarray(pad(image, multiple))
        return torch.from_numpy(padded)[None, None].to(self.device).float()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Sets the precision, and that nothing is to be learned."""
        autocast: Any = torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )
        with torch.inference_mode(), autocast:
            yield

    def __call__(self, image: Gray) -> Raw:
        """Detects in a gray image uint8 (H, W) of any size.

        Returns:
            Boxes (P, 4), XYXY in its pixels, clipped to it, and probabilities (P, 25).
        """
        with self.computing():
            size = (image.shape[0], image.shape[1]) if self.as_in_training else None
            boxes, probabilities = self.core(self.tensor(image), size)
        return clip(boxes.cpu().numpy(), image.shape), probabilities.cpu().numpy()


def clip(boxes: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns boxes (P, 4) clipped to an image of (height, width)."""
    height, width = size[:2]
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=np.float32))
