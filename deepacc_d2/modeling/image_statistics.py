"""Batch normalization that follows the image at inference, against differences between batches.

How a slide was stained and photographed shifts the features of all its chromosomes. Statistics that
were averaged over the training set know nothing of that. Here they are mixed with those of the
image itself (adaptive batch normalization, Li et al. 2017; a mixture as in Schneider et al. 2020).
The trunk does then what local class centers do in the classifier: no weight changes, and no second
image is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from deepacc_d2.errors import ConfigError
from deepacc_d2.method import check_shares

# Every other row and column is enough for a mean and a variance, at a quarter of the cost.
STEP = 2


class ImageBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization whose statistics are mixed, in evaluation, with those of each image.

    ``mean = (1 - share) * running_mean + share * mean(x)``, and the variance likewise, for each
    image of a batch by itself. In training it is plain batch normalization.

    Attributes:
        share: of the image's own statistics, 0 to 1.
    """

    def __init__(self, num_features: int, share: float, **options: object) -> None:
        super().__init__(num_features, **options)  # type: ignore[arg-type]
        self.share = share

    @classmethod
    def of(cls, norm: _BatchNorm, share: float) -> ImageBatchNorm2d:
        """Takes the place of a batch normalization, with its very tensors."""
        made = cls(norm.num_features, share, eps=norm.eps, momentum=norm.momentum)
        made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        return made.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes (N, C, H, W)."""
        if self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        some = _thinned(input).float()
        # torch.var_mean would take many times as long. From the running mean, squares stay small.
        off = some - self.running_mean[:, None, None]
        shift = off.mean(dim=(2, 3))
        own = (off * off).mean(dim=(2, 3)) - shift * shift
        mean = self.running_mean + self.share * shift
        var = self.running_var + self.share * (own.clamp(min=0) - self.running_var)
        if len(input) == 1:
            # One fused pass instead of three.
            return F.batch_norm(input, mean[0], var[0], self.weight, self.bias, eps=self.eps)
        scale = self.weight * torch.rsqrt(var + self.eps)
        bias = self.bias - mean * scale
        return (input * scale[..., None, None] + bias[..., None, None]).to(input.dtype)

    def extra_repr(self) -> str:
        """Adds the share."""
        return f"{super().extra_repr()}, share={self.share}"


def _thinned(x: Tensor) -> Tensor:
    """Takes every STEP-th row and column of (N, C, H, W)."""
    if torch.onnx.is_in_onnx_export():
        # The same, slower. OpenVINO reads a quantized convolution wrongly through a strided slice.
        return F.avg_pool2d(x, 1, STEP)
    return x[..., ::STEP, ::STEP]


def use_image_statistics(module: nn.Module, share: float) -> None:
    """Lets every batch normalization of a module follow the image.

    Raises:
        ConfigError: the share is outside 0 to 1, or the module has no batch normalization.
    """
    check_shares(statistics_share=share)
    found = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(parent, name, ImageBatchNorm2d.of(child, share))
                found += 1
    if not found:
        raise ConfigError(
            f"statistics_share={share}: the trunk has no batch normalization that could follow the "
            "image (FrozenBN and GN have no statistics of a batch): set it to 0"
        )
