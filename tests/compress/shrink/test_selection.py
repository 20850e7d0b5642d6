from itertools import product

import pytest
import torch

from compress.shrink.selection import comparable, keep_globally, keep_in_each


def kept(
    scores: list[list[float]], ratio: float, round_to: int = 1, *, globally: bool = False
) -> list[list[int]]:
    choose = keep_globally if globally else keep_in_each
    return [each.tolist() for each in choose([torch.tensor(each) for each in scores], ratio, round_to)]


def test_each_layer_loses_its_own_worst() -> None:
    assert kept([[3, 1, 2, 4], [30, 10, 20, 40]], 0.5) == [[0, 3], [0, 3]]


def test_the_whole_model_loses_its_worst() -> None:
    assert kept([[3, 1, 2, 4], [30, 10, 20, 40]], 0.375, globally=True) == [[3], [0, 1, 2, 3]]


def test_no_layer_is_emptied() -> None:
    assert kept([[1], [2, 3]], 0.99) == [[0], [1]]
    assert kept([[1, 1], [20, 30, 40]], 0.99, globally=True) == [[0], [2]]


@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.6, 0.7])
def test_the_global_choice_keeps_the_most_of_all_that_are_allowed(ratio: float) -> None:
    """Against brute force over every choice of as many units that leaves each layer at least one."""
    scores = list(torch.rand(10, generator=torch.Generator().manual_seed(1)).split([2, 3, 5]))
    worth = torch.cat(scores)
    owners = [0] * 2 + [1] * 3 + [2] * 5
    best = max(
        float(worth[torch.tensor(stays)].sum())
        for stays in product([False, True], repeat=10)
        if sum(stays) == 10 - int(10 * ratio)
        and {o for o, s in zip(owners, stays, strict=True) if s} == {0, 1, 2}
    )
    chosen = keep_globally(scores, ratio)
    got = sum(float(each[stays].sum()) for each, stays in zip(scores, chosen, strict=True))
    assert got == pytest.approx(best)


@pytest.mark.parametrize("globally", [False, True])
def test_widths_are_rounded_up_to_a_multiple(globally: bool) -> None:
    scores = [list(range(20)), list(range(20, 40)), [1, 2, 3]]
    widths = [len(each) for each in kept(scores, 0.5, 8, globally=globally)]
    assert all(width % 8 == 0 or width == len(all_) for width, all_ in zip(widths, scores, strict=True))
    assert widths[2] == 3


def test_a_ratio_means_what_it_says_in_decimal() -> None:
    assert len(kept([[float(i) for i in range(100)]], 0.29)[0]) == 71


def test_layers_of_another_scale_become_comparable() -> None:
    small, large = torch.tensor([1.0, 2.0]), torch.tensor([100.0, 200.0, 100.0, 200.0])
    one, other = comparable([small, large])
    torch.testing.assert_close(one, other[:2])
    assert comparable([torch.zeros(3)])[0].tolist() == [0, 0, 0]
