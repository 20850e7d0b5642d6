"""Detectors in two stages, regions first: r-cnn, fast-r-cnn, faster-r-cnn.

pixel_values float32 [batch, 1, 64, 64] to float32 [batch, regions, 4 + classes], as the detectors in one
stage answer. All three classify and move a fixed number of proposed boxes; what differs is who proposes them,
and what of the image each box is judged by. Suppression of overlapping answers is the runtime's.

The trade-offs: the papers' proposals come from a program outside of the network (Selective Search); here
they are scored in the graph, by edges, as Edge Boxes does, so that one ONNX file needs nothing beside it. A
program can follow contours, the graph can only add up what lies in boxes of given sizes: one object in
fifteen has no proposal among 48. The papers draw the regions that they train on so that a quarter lies on
objects; here it is all that are proposed, of which about a half (by edges) or a quarter (by a trained
network) does. One box moves for all classes, where the papers have one a class. Maps are sampled between
their cells (RoIAlign), and one point stands for a bin.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training import Batch
from models.zoo.convolutional.layers import conv_norm
from models.zoo.detection import BOX_WEIGHT, generalised_iou

SIDE = 64
# Edge Boxes, section 3.2: the exponent that keeps large boxes from winning by their size.
KAPPA = 1.5
# Edges are counted in so many parts of a pixel value's unit: sums of whole numbers are the same in any order.
EDGE_STEPS = 64
# Of so many best boxes those are dropped that overlap a better one by more than `ALIKE` (Ren et al., 3.3).
CONSIDERED, ALIKE = 192, 0.7
# A region is an object's from this overlap on (Girshick, 2015, 2.3). An anchor below the second one is of
# none; between the two it does not count (Ren et al., 3.1.2, with 0.7 for the first).
POSITIVE, NEGATIVE = 0.5, 0.3
# A region's sides change by at most this factor, as a logarithm.
MOST_GROWTH = 1.0
# Equal scores go by place, so much apart in double precision: less than any two scores that differ.
APART = 1e-9
# Where an image is empty all anchors are as likely but for rounding; this much, over all of them, puts them
# in order.
TIE_BREAK = 0.02


class EdgeProposals(nn.Module):
    """Boxes of given sizes (width, height; pixels) on a grid, scored by the edges that they hold entirely.

    Zitnick and Dollar (2014, Edge Boxes): edges inside, less those on the border, over the perimeter to the
    power of `KAPPA`. An edge counts as crossing where it lies within a pixel of the border; the paper follows
    its contour.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], stride: int = 2) -> None:
        super().__init__()
        boxes = torch.cat([_tiled(width, height, stride) for width, height in sizes])
        perimeter = (boxes[:, 2:] - boxes[:, :2]).sum(-1).float()
        self.register_buffer("boxes", boxes / SIDE, persistent=False)
        self.register_buffer("weight", perimeter**-KAPPA, persistent=False)
        grown = torch.tensor([-1, -1, 1, 1])
        self.register_buffer("inner", _corners(boxes - grown), persistent=False)
        self.register_buffer("outer", _corners((boxes + grown).clamp(0, SIDE)), persistent=False)

    def forward(self, pixel_values: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        image = pixel_values[:, 0]
        across = (image[:, :, 1:] - image[:, :, :-1]).abs()
        down = (image[:, 1:] - image[:, :-1]).abs()
        edges = ((F.pad(across, (1, 0)) + F.pad(down, (0, 0, 1, 0))) * EDGE_STEPS).round()
        integral = F.pad(edges.cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)
        inside, reached = (_summed(integral, corners) for corners in (self.inner, self.outer))
        scores = (inside - (reached - inside)) * self.weight
        return self.boxes.expand(pixel_values.shape[0], -1, -1), scores

    boxes: Tensor
    weight: Tensor
    inner: Tensor
    outer: Tensor


class ProposalNetwork(nn.Module):
    """An objectness logit and a moved box for each anchor at each cell of a map (Ren et al., 3.1)."""

    def __init__(self, width: int, side: int, sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        stride = SIDE // side
        self.shared = conv_norm(width, width)
        self.convolution = nn.Conv2d(width, len(sizes) * 5, 1)
        centres = (torch.arange(side) + 0.5) * stride / SIDE
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        middle = torch.stack([columns, rows], -1).view(-1, 1, 2)
        half = torch.tensor(sizes) / SIDE / 2
        anchors = torch.cat([middle - half, middle + half], -1).view(-1, 4)
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("tie_break", torch.linspace(TIE_BREAK, 0, len(anchors)), persistent=False)

    def forward(self, pixel_values: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.convolution(self.shared(features)).permute(0, 2, 3, 1)
        raw = raw.reshape(features.shape[0], -1, 5)
        return moved(self.anchors, raw[..., :4]), raw[..., 4] + self.tie_break

    anchors: Tensor
    tie_break: Tensor


class RegionHead(nn.Module):
    """What is pooled of each region, to class logits (the background last) and the moved box.

    `layers` takes [regions, channels, size, size] and gives [regions, features].
    """

    def __init__(self, layers: nn.Module, features: int, classes: int, size: int, context: float) -> None:
        super().__init__()
        self.layers, self.size, self.context = layers, size, context
        self.scores = nn.Linear(features, classes + 1)
        self.moves = nn.Linear(features, 4)

    def forward(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """features [batch, channels, height, width] and boxes [batch, regions, 4] to boxes of the same shape
        and logits [batch, regions, classes + 1].
        """
        seen = self.layers(sampled(features, enlarged(boxes, self.context), self.size))
        shape = (boxes.shape[0], boxes.shape[1], -1)
        return moved(boxes, self.moves(seen).reshape(shape)), self.scores(seen).reshape(shape)


class RegionDetector(nn.Module):
    """Features, `regions` proposals, and a head that judges each."""

    def __init__(self, backbone: nn.Module, proposer: nn.Module, head: RegionHead, regions: int) -> None:
        super().__init__()
        self.backbone, self.proposer, self.head, self.regions = backbone, proposer, head, regions

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.backbone(pixel_values)
        proposed, objectness = self.proposer(pixel_values, features)
        boxes, scores = self.head(features, distinct(proposed, objectness, self.regions))
        return torch.cat([boxes, one_against_others(scores)], -1)


def r_cnn(classes: int = 10, width: int = 16, regions: int = 48) -> nn.Module:
    """Each proposal is cut out of the image, warped to a square, and goes through a convolutional network of
    its own (Girshick et al., 2014, arXiv:1311.2524; its classes by softmax, not by SVMs).
    """
    layers = nn.Sequential(
        conv_norm(1, width, stride=2),
        conv_norm(width, 2 * width),
        nn.MaxPool2d(2),
        conv_norm(2 * width, 4 * width),
        *(nn.Flatten(), *_dense_norm(64 * width, 6 * width)),
    )
    # The paper's 16 pixels of context on each side of a warped region of 227.
    head = RegionHead(layers, 6 * width, classes, 16, context=227 / (227 - 2 * 16))
    return RegionDetector(nn.Identity(), EdgeProposals(_digit_boxes()), head, regions)


def fast_r_cnn(classes: int = 10, width: int = 24, regions: int = 48) -> nn.Module:
    """One map of features for the image, from which each proposal is pooled (Girshick, 2015,
    arXiv:1504.08083).
    """
    return RegionDetector(_backbone(width), EdgeProposals(_digit_boxes()), _head(width, classes), regions)


def faster_r_cnn(classes: int = 10, width: int = 24, regions: int = 32) -> nn.Module:
    """The same, with proposals by a network on the same map, trained together with the rest (Ren et al.,
    2015, arXiv:1506.01497).
    """
    proposer = ProposalNetwork(2 * width, 16, [(10, 16), (14, 22), (18, 28)])
    return RegionDetector(_backbone(width), proposer, _head(width, classes), regions)


def region_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy over regions, generalised IoU over those on an object, and the proposals' own loss.

    The objects' own boxes are regions too, so that there are some from the first step on. Proposals are taken
    as given: no gradient goes through their places (the approximate joint training of Ren et al., 3.2).
    """
    assert isinstance(module, RegionDetector)
    pixel_values, targets = batch["pixel_values"], batch["targets"]
    features = module.backbone(pixel_values)
    proposed, objectness = module.proposer(pixel_values, features)
    regions = distinct(proposed.detach(), objectness.detach(), module.regions)
    present = targets[..., :1] >= 0
    regions = torch.cat([regions, torch.where(present, targets[..., 1:], regions[:, : targets.shape[1]])], 1)
    boxes, scores = module.head(features, regions)
    overlap, objects = assigned(regions, targets)
    found = overlap >= POSITIVE
    wanted = torch.where(found, objects[..., 0].long(), scores.shape[-1] - 1)
    loss = F.cross_entropy(scores.flatten(0, 1).float(), wanted.flatten())
    loss = (
        loss + BOX_WEIGHT * (1 - generalised_iou(boxes[found], objects[found][:, 1:])).sum() / found.numel()
    )
    if isinstance(module.proposer, ProposalNetwork):
        loss = loss + proposal_loss(module.proposer.anchors, proposed, objectness, targets)
    return loss


def proposal_loss(anchors: Tensor, boxes: Tensor, objectness: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, anchors on objects and elsewhere weighing the same, and generalised IoU.

    Equal weights stand for the paper's mini-batches of as many of the one as of the other.
    """
    overlap, objects = assigned(anchors.expand(len(targets), -1, -1), targets)
    found, elsewhere = overlap >= POSITIVE, overlap < NEGATIVE
    logits = objectness.float()
    missed = F.softplus(-logits[found]).sum() / found.sum().clamp(min=1)
    false = F.softplus(logits[elsewhere]).mean()
    wide = (1 - generalised_iou(boxes[found], objects[found][:, 1:])).sum() / found.sum().clamp(min=1)
    return (missed + false) / 2 + wide


def assigned(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """For each box [batch, n, 4] the largest overlap with an object [batch, n], and its row [batch, n, 5]."""
    overlap, which = overlaps(boxes, targets[..., 1:]).max(-1)
    return overlap, targets.gather(1, which[..., None].expand(-1, -1, targets.shape[-1]))


def distinct(boxes: Tensor, scores: Tensor, count: int) -> Tensor:
    """The `count` best of boxes [batch, n, 4] that are not too much like a better one, in `boxes`' order.

    All rivals at once: a box goes even where the better one goes too (Fast NMS of YOLACT, Bolya et al., 2019,
    arXiv:1904.02689), which needs no loop. Where too few are left, those that went fill up.
    """
    # By keys that are never equal, since torch and onnxruntime order equal ones otherwise.
    places = torch.arange(scores.shape[1], device=scores.device)
    order = (scores.double() - places * APART).topk(min(CONSIDERED, scores.shape[1]), dim=1).indices
    best = _taken(boxes, order)
    rivalled = overlaps(best, best).triu(1).amax(1) > ALIKE
    ranks = places[: order.shape[1]] + rivalled * order.shape[1]
    kept = ranks.topk(count, dim=1, largest=False).indices
    return _taken(boxes, order.gather(1, kept).sort(1).values)


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of [batch, n, 4] and [batch, m, 4], [batch, n, m]."""
    # Sides apart: over pairs, an axis of two at the end is several times slower.
    left, top, right, bottom = boxes[:, :, None].unbind(-1)
    left_other, top_other, right_other, bottom_other = others[:, None].unbind(-1)
    across = (torch.minimum(right, right_other) - torch.maximum(left, left_other)).clamp(min=0)
    down = (torch.minimum(bottom, bottom_other) - torch.maximum(top, top_other)).clamp(min=0)
    shared = across * down
    areas = (right - left) * (bottom - top) + (right_other - left_other) * (bottom_other - top_other)
    return shared / (areas - shared).clamp(min=1e-9)


def moved(boxes: Tensor, moves: Tensor) -> Tensor:
    """Boxes [..., 4], shifted in parts of their size and grown by a factor's logarithm (Girshick et al.,
    2014, appendix C).
    """
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + size / 2 + moves[..., :2] * size
    half = size * moves[..., 2:].clamp(-MOST_GROWTH, MOST_GROWTH).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def enlarged(boxes: Tensor, factor: float) -> Tensor:
    """Boxes [..., 4] about the same centres."""
    grow = (boxes[..., 2:] - boxes[..., :2]) * (factor - 1) / 2
    return torch.cat([boxes[..., :2] - grow, boxes[..., 2:] + grow], -1)


def sampled(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`size` x `size` points of each box, between cells where they fall there; zero outside of the map.

    features [batch, channels, height, width], boxes [batch, n, 4] to [batch * n, channels, size, size].
    """
    steps = (torch.arange(size, device=boxes.device) + 0.5) / size
    places = boxes[..., None, :2] + (boxes[..., None, 2:] - boxes[..., None, :2]) * steps[:, None]
    across = places[..., 0][:, :, None, :].expand(-1, -1, size, -1)
    down = places[..., 1][:, :, :, None].expand(-1, -1, -1, size)
    # As one tall map of points: [batch, n * size, size, 2], in [-1, 1].
    grid = torch.stack([across, down], -1).flatten(1, 2) * 2 - 1
    # In the boxes' precision: half a one would move points by parts of a pixel.
    points = F.grid_sample(features.to(grid.dtype), grid, align_corners=False)
    channels = features.shape[1]
    rows = points.reshape(boxes.shape[0], channels, boxes.shape[1], size, size).transpose(1, 2)
    return rows.reshape(-1, channels, size, size)


def one_against_others(scores: Tensor) -> Tensor:
    """Logits [..., classes] whose sigmoid is the softmax of `scores` [..., classes + 1], the background left
    out: what the runtime takes for a detection's score.
    """
    classes = scores.shape[-1] - 1
    others = scores[..., None, :].masked_fill(torch.eye(classes, classes + 1, device=scores.device) > 0, -1e4)
    return scores[..., :-1] - others.logsumexp(-1)


def _backbone(width: int) -> nn.Module:
    """[batch, 1, 64, 64] to [batch, 2 * width, 16, 16]."""
    return nn.Sequential(
        conv_norm(1, width, stride=2),
        conv_norm(width, 2 * width, stride=2),
        *(conv_norm(2 * width, 2 * width) for _ in range(3)),
    )


def _head(width: int, classes: int) -> RegionHead:
    """Fully connected layers over 6 x 6 points of each region of a map of 2 * width channels."""
    features = 4 * width
    layers = nn.Sequential(nn.Flatten(), *_dense_norm(72 * width, features), *_dense_norm(features, features))
    return RegionHead(layers, features, classes, 6, context=1.0)


def _dense_norm(inputs: int, outputs: int) -> list[nn.Module]:
    # The papers start from trained weights. From random ones nothing is told apart for long without the norm.
    return [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]


def _digit_boxes() -> list[tuple[int, int]]:
    """Three scales and three aspects, in pixels."""
    return [(round(height * aspect), height) for height in (16, 22, 28) for aspect in (0.45, 0.65, 0.85)]


def _tiled(width: int, height: int, stride: int) -> Tensor:
    """Every place of a box that is `stride` pixels from the next, int64 [boxes, 4]."""
    rows, columns = torch.meshgrid(
        torch.arange(0, SIDE - height + 1, stride), torch.arange(0, SIDE - width + 1, stride), indexing="ij"
    )
    return torch.stack([columns, rows, columns + width, rows + height], -1).view(-1, 4)


def _corners(boxes: Tensor) -> Tensor:
    """Where an integral image, flattened, has the boxes' corners, int64 [4, boxes]: the sum's signs are
    + - - +.
    """
    left, top, right, bottom = boxes.unbind(1)
    pairs = [(bottom, right), (top, right), (bottom, left), (top, left)]
    return torch.stack([row * (SIDE + 1) + column for row, column in pairs])


def _summed(integral: Tensor, corners: Tensor) -> Tensor:
    whole, above, left, both = (integral[:, each] for each in corners)
    return whole - above - left + both


def _taken(boxes: Tensor, order: Tensor) -> Tensor:
    return boxes.gather(1, order[..., None].expand(-1, -1, 4))
