"""Peak rates of cards, from NVIDIA's datasheets.

Of dense matrices: where a datasheet gives a rate with sparsity alone, half of it. Lightning has a
table too, but it mixes both kinds.
"""

from __future__ import annotations

import re

# By the name that torch gives the card: dense TFLOP/s in bf16 with fp32 accumulation, and in TF32.
# NVIDIA's datasheets "H200 Tensor Core GPU", "H100 Tensor Core GPU" (SXM, PCIe, NVL),
# "A100 Tensor Core GPU", "L40S", "L4 Tensor Core GPU", "A40", "A10 Tensor Core GPU", and its
# whitepapers "Ada GPU Architecture" (RTX 4090) and "Ampere GA102 GPU Architecture" (RTX 3090).
_PEAKS: dict[str, tuple[float, float]] = {
    r"NVIDIA H200": (989.4, 494.7),
    r"NVIDIA H100 80GB HBM3": (989.4, 494.7),
    r"NVIDIA H100 PCIe": (756.0, 378.0),
    r"NVIDIA H100 NVL": (835.5, 417.5),
    r"(NVIDIA )?A100[- ].*": (312.0, 156.0),
    r"NVIDIA L40S": (362.0, 183.0),
    r"NVIDIA L4": (121.0, 60.0),
    r"NVIDIA A40": (149.7, 74.8),
    r"NVIDIA A10": (125.0, 62.5),
    r"NVIDIA GeForce RTX 4090": (165.2, 82.6),
    r"NVIDIA GeForce RTX 3090": (71.0, 35.6),
}


def peak_flops(card: str, precision: str) -> float | None:
    """Returns the most FLOP/s that a card can do in a precision; null where it is not known.

    Args:
        card: as :func:`torch.cuda.get_device_name` says.
        precision: ``bf16-mixed``, or ``32-true``, for which it is that of TF32: cuDNN does
            convolutions in it unless told otherwise.
    """
    for name, (bf16, tf32) in _PEAKS.items():
        if re.fullmatch(name, card):
            return (bf16 if precision.startswith("bf16") else tf32) * 1e12
    return None
