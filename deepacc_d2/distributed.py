"""Numbers and statistics that a step needs of all its processes, not of one process's share."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from fvcore.nn.distributed import differentiable_all_reduce
from torch import Tensor, nn


def count_per_process(count: Tensor) -> Tensor:
    """Shares a count out evenly: the sum over all processes, at least one, over their number.

    What divides a sum of losses must be this, not a process's own count, for the gradients, which
    are averaged over the processes, to be those of one process with all the images.

    Args:
        count: a scalar, this process's.

    Returns:
        A float scalar, the same in every process.
    """
    total = count.detach().to(torch.float32, copy=True)
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(total)
    return total.clamp(min=1) / comm.get_world_size()


class GatheredBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization over the images of all processes, on any device.

    torch's ``SyncBatchNorm`` wants a GPU. Detectron2's ``NaiveSyncBatchNorm`` runs anywhere but
    keeps the biased variance in ``running_var``, so that it evaluates a little differently than
    the ``BatchNorm2d`` of one process with the same images. This one has the same results as that,
    with any number of images in a process. Weights are those of ``BatchNorm2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes maps (B, C, H, W)."""
        if not self.training or comm.get_world_size() == 1:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._gathered(input.float()).to(input.dtype)

    def _gathered(self, x: Tensor) -> Tensor:
        count = x.new_tensor([x.numel() / x.shape[1]])
        sums = differentiable_all_reduce(torch.cat([x.sum(dim=(0, 2, 3)), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        # In two passes: the mean of squares less the square of the mean loses half the digits.
        centered = x - mean[:, None, None]
        variance = differentiable_all_reduce(centered.square().sum(dim=(0, 2, 3))) / total
        self._track(mean.detach(), variance.detach() * total / (total - 1).clamp(min=1))
        normalized = centered * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.weight is None:
            return normalized
        return normalized * self.weight[:, None, None] + self.bias[:, None, None]

    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # A null momentum means the plain average over all batches.
        momentum = self.momentum or 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased_variance, momentum)


def gather_batch_norm(module: nn.Module) -> nn.Module:
    """Makes every ``BatchNorm2d`` within a module a :class:`GatheredBatchNorm2d`, in place."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.__class__ = GatheredBatchNorm2d
    return module
