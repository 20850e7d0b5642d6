"""Proposals, their sampling and their scores, against what the definitions say."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.zoo.region_detection import (
    ALIKE,
    SIDE,
    EdgeProposals,
    distinct,
    faster_r_cnn,
    moved,
    one_against_others,
    overlaps,
    region_loss,
    sampled,
)
from runtime.detection import intersection_over_union


def boxes(count: int, seed: int = 0) -> Tensor:
    """Random boxes [1, count, 4] that are not empty."""
    corners = torch.rand((1, count, 2, 2), generator=torch.Generator().manual_seed(seed))
    return torch.cat([corners.amin(2), corners.amax(2) + 0.01], -1)


def test_overlaps_are_the_runtimes() -> None:
    some, others = boxes(9), boxes(7, seed=1)
    wanted = intersection_over_union(some[0].numpy(), others[0].numpy())
    assert overlaps(some, others)[0].numpy() == pytest.approx(wanted, abs=1e-6)


def test_the_best_edge_proposal_lies_on_the_only_object() -> None:
    proposer = EdgeProposals([(10, 20), (20, 10), (24, 24)])
    image = torch.zeros(1, 1, SIDE, SIDE)
    # A pixel of room, so that all of the object's outline is inside of its box.
    image[0, 0, 33:50, 13:20] = 1
    found, scores = proposer(image, image)
    best = found[0, scores[0].argmax()] * SIDE
    assert best.tolist() == [12, 32, 22, 52]


def test_no_box_is_like_a_better_one_while_others_are_left() -> None:
    proposed, scores = boxes(300), torch.rand((1, 300), generator=torch.Generator().manual_seed(1))
    kept = distinct(proposed, scores, 8)
    assert float(overlaps(kept, kept)[0].fill_diagonal_(0).max()) <= ALIKE
    best = proposed[0, scores[0].argmax()]
    assert (kept[0] == best).all(-1).any()


def test_boxes_alike_fill_up_where_there_is_nothing_else() -> None:
    proposed = torch.tensor([[[0.1, 0.1, 0.5, 0.5]] * 6])
    assert distinct(proposed, torch.zeros(1, 6), 4).shape == (1, 4, 4)


def test_equal_scores_go_by_place() -> None:
    proposed = boxes(400)
    first = distinct(proposed, torch.zeros(1, 400), 5)
    places = [int((proposed[0] == box).all(-1).nonzero()) for box in first[0]]
    assert places == sorted(places)
    assert max(places) < 40


def test_points_of_a_ramp_are_their_own_places() -> None:
    ramp = ((torch.arange(8) + 0.5) / 8).expand(1, 1, 8, 8)
    points = sampled(ramp, torch.tensor([[[0.25, 0.25, 0.75, 0.75], [0.3, 0.1, 0.5, 0.9]]]), 4)
    assert points.shape == (2, 1, 4, 4)
    wanted = np.array([[0.3125, 0.4375, 0.5625, 0.6875], [0.325, 0.375, 0.425, 0.475]])
    assert points[:, 0, 0].numpy() == pytest.approx(wanted, abs=1e-6)


def test_no_move_leaves_a_box_and_a_move_is_in_parts_of_its_size() -> None:
    box = torch.tensor([0.2, 0.2, 0.4, 0.6])
    assert moved(box, torch.zeros(4)).tolist() == pytest.approx(box.tolist())
    shifted = moved(box, torch.tensor([0.5, -0.5, 0.0, float(np.log(2))]))
    assert shifted.tolist() == pytest.approx([0.3, -0.2, 0.5, 0.6])


def test_the_sigmoid_of_an_answer_is_its_class_share_of_the_softmax() -> None:
    scores = torch.randn((5, 4), generator=torch.Generator().manual_seed(0)) * 4
    wanted = scores.softmax(-1)[:, :3]
    assert one_against_others(scores).sigmoid().numpy() == pytest.approx(wanted.numpy(), abs=1e-6)


def test_an_image_without_objects_teaches_the_background_alone() -> None:
    module = faster_r_cnn(width=4)
    targets = torch.full((2, 4, 5), -1.0)
    targets[..., 1:] = 0
    region_loss(module, {"pixel_values": torch.zeros(2, 1, SIDE, SIDE), "targets": targets}).backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    moves, scores = gradients["head.moves.weight"], gradients["head.scores.weight"]
    assert moves is None or not moves.any()
    assert scores is not None
    assert scores.isfinite().all()
