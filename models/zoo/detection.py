"""Detectors in one stage: yolo and ssd.

pixel_values float32 [batch, 1, 64, 64] to float32 [batch, candidates, 4 + classes]: a box (left, top, right,
bottom in parts of the image) and a logit a class. Suppression of overlapping boxes is the runtime's
(`runtime.detection`). Both are trained by the same loss; what differs is where candidates come from. The
trade-off of one loss: neither paper's exact one, but a focal loss that needs no mining of negatives.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training import Batch
from models.zoo.convolutional.layers import conv_norm

# Lin et al. (2017, arXiv:1708.02002), section 4.1.
FOCAL_GAMMA, FOCAL_ALPHA = 2.0, 0.25
# The prior probability that a candidate is an object, and the weight of the boxes' loss.
PRIOR, BOX_WEIGHT = 0.01, 5.0


class Head(nn.Module):
    """Candidates of one feature map [batch, width, side, side]: at each cell one box a default size.

    A cell's box has its centre within reach of the cell and its sides as multiples of the default's.
    """

    def __init__(self, width: int, classes: int, side: int, sizes: Sequence[float]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, len(sizes) * (4 + classes), 3, padding=1)
        self.outputs = 4 + classes
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]
        bias = self.convolution.bias
        assert bias is not None
        bias.data.view(len(sizes), -1)[:, 4:] = -torch.tensor((1 - PRIOR) / PRIOR).log()
        steps = (torch.arange(side) + 0.5) / side
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        centres = torch.stack([columns, rows], -1).view(-1, 1, 2).expand(-1, len(sizes), 2)
        defaults = torch.tensor(sizes).view(1, -1, 1).expand(side * side, -1, 2)
        self.register_buffer("centres", centres.reshape(-1, 2), persistent=False)
        self.register_buffer("sizes", defaults.reshape(-1, 2), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        raw = self.convolution(features).permute(0, 2, 3, 1).reshape(features.shape[0], -1, self.outputs)
        centre = self.centres + raw[..., :2].tanh() * self.sizes / 2
        half = self.sizes * raw[..., 2:4].clamp(-3, 3).exp() / 2
        return torch.cat([centre - half, centre + half, raw[..., 4:]], -1)

    def default_boxes(self) -> Tensor:
        """The boxes of a head that moves nothing, [candidates, 4]."""
        half = self.sizes / 2
        return torch.cat([self.centres - half, self.centres + half], -1)

    centres: Tensor
    sizes: Tensor


class Detector(nn.Module):
    """A backbone of stages, and a head on the output of each of its last ones."""

    def __init__(self, stages: Sequence[nn.Module], heads: Sequence[Head]) -> None:
        super().__init__()
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)

    def forward(self, pixel_values: Tensor) -> Tensor:
        features, maps = pixel_values, []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        last = maps[-len(self.heads) :]
        return torch.cat([head(each) for head, each in zip(self.heads, last, strict=True)], 1)

    def default_boxes(self) -> Tensor:
        """Every candidate's default box, [candidates, 4]."""
        heads = (head for head in self.heads if isinstance(head, Head))
        return torch.cat([head.default_boxes() for head in heads])


def yolo(classes: int = 10, width: int = 24, default: float = 0.3) -> nn.Module:
    """One grid of 16 x 16 cells, one box each (Redmon et al., 2015, arXiv:1506.02640, with the convolutional
    boxes of its successors).
    """
    stages = [
        conv_norm(1, width, stride=2),
        conv_norm(width, 2 * width, stride=2),
        *(conv_norm(2 * width, 2 * width) for _ in range(4)),
    ]
    return Detector(stages, [Head(2 * width, classes, 16, (default,))])


def ssd(
    classes: int = 10, width: int = 24, sizes: Sequence[Sequence[float]] = ((0.22, 0.32), (0.32, 0.42))
) -> nn.Module:
    """Default boxes of several sizes on maps of 16 x 16 and 8 x 8 (Liu et al., 2015, arXiv:1512.02325)."""
    fine, coarse = sizes
    stages = [
        conv_norm(1, width, stride=2),
        nn.Sequential(
            conv_norm(width, 2 * width, stride=2), *(conv_norm(2 * width, 2 * width) for _ in range(3))
        ),
        nn.Sequential(conv_norm(2 * width, 2 * width, stride=2), conv_norm(2 * width, 2 * width)),
    ]
    return Detector(stages, [Head(2 * width, classes, 16, fine), Head(2 * width, classes, 8, coarse)])


def detection_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Focal loss over all candidates and classes, and generalised IoU over those that have an object.

    Each object goes to the candidate whose default box has its centre nearest and its size most alike. Both
    losses are sums over the batch's objects, per object.
    """
    assert isinstance(module, Detector)
    output, targets = module(batch["pixel_values"]), batch["targets"]
    image, which = torch.nonzero(targets[..., 0] >= 0, as_tuple=True)
    objects = targets[image, which]
    candidate = _assigned(module.default_boxes(), objects[:, 1:])
    wanted = torch.zeros_like(output[..., 4:])
    wanted[image, candidate, objects[:, 0].long()] = 1
    boxes = 1 - generalised_iou(output[image, candidate, :4], objects[:, 1:])
    return (focal_loss(output[..., 4:], wanted) + BOX_WEIGHT * boxes.sum()) / len(objects)


def focal_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy that easy candidates hardly count in, summed (Lin et al., equation 5)."""
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    miss = torch.where(wanted > 0, 1 - logits.sigmoid(), logits.sigmoid())
    return (torch.where(wanted > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA) * miss**FOCAL_GAMMA * loss).sum()


def generalised_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU less the share of the hull that neither box covers, [n] (Rezatofighi et al., arXiv:1902.09630)."""
    shared = _area(torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:]))
    hull = _area(torch.minimum(boxes[:, :2], others[:, :2]), torch.maximum(boxes[:, 2:], others[:, 2:]))
    union = _area(boxes[:, :2], boxes[:, 2:]) + _area(others[:, :2], others[:, 2:]) - shared
    return shared / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)


def _assigned(defaults: Tensor, boxes: Tensor) -> Tensor:
    """The candidate of each box, int64 [boxes]."""
    centres = [(each[:, :2] + each[:, 2:]) / 2 for each in (defaults, boxes)]
    sizes = [(each[:, 2:] - each[:, :2]).clamp(min=1e-6).log() for each in (defaults, boxes)]
    distance = torch.cdist(centres[1], centres[0])
    # A factor of e in size counts as a tenth of the image in place.
    return (distance + 0.1 * torch.cdist(sizes[1], sizes[0])).argmin(1)
