"""What several of the convolutional networks are made of."""

import torch
from torch import Tensor, nn


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution that keeps the size (but for `stride`), batch norm, and an activation where one is
    given.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class StochasticDepth(nn.Module):
    """Drops whole residual branches in training (Huang et al., 2016, arXiv:1603.09382).

    A branch [batch, ...] is zero for a row with probability `rate`, and scaled up for the rest so that its
    mean stays. In evaluation nothing happens.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return branch
        kept = torch.rand(branch.shape[:1] + (1,) * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * kept / (1 - self.rate)


def depth_rates(rate: float, blocks: int) -> list[float]:
    """The drop rate of each block: linear in its depth, up to `rate` (section 4 of the same paper)."""
    return [rate * block / max(blocks - 1, 1) for block in range(blocks)]
