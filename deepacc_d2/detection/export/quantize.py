"""Post-training quantization to int8, by NNCF for OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from deepacc_d2.detection.network import pad
from deepacc_d2.detection.runners import require
from deepacc_d2.images.spread import Gray

KEEP_FLOAT = (
    r".*/rpn_head/(objectness_logits|anchor_deltas)(_\d+)?/.*",
    # Arithmetic on coordinates: in 256 steps a box is off by pixels. Output layers and the products
    # with class centers are of these, too.
    r"^(?!.*/(backbone|rpn_head|box_head)/).*$",
)
"""Names of nodes that stay in float32: all but the layers of trunk, RPN and box head."""


def quantize(model: Any, images: Sequence[Gray], multiple: int) -> Any:
    """Quantizes an OpenVINO model to int8.

    Ranges of activations are taken from the images; weights are quantized channel by channel.

    Args:
        model: of :func:`~deepacc_d2.detection.export.write.read_openvino`.
        images: uint8 (H, W), as the network is shown them; some hundred real ones.
        multiple: the detector's size divisibility.

    Raises:
        ConfigError: NNCF is not installed.
    """
    require("nncf", "openvino")
    import nncf

    def pixels(image: Gray) -> dict[str, Any]:
        return {"image": pad(image, multiple)[None, None].astype(np.float32)}

    # What NNCF logs of each step is nothing that a user could act on.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf.quantize(
        model,
        nncf.Dataset(images, pixels),
        subset_size=len(images),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(patterns=list(KEEP_FLOAT), validate=False),
    )
