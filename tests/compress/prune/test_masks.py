import numpy as np
import pytest
import torch

from compress.prune import masks


def test_a_count_is_rounded_down_but_not_by_floating_point() -> None:
    assert masks.pruned_count(0.29, 100) == 29
    assert masks.pruned_count(0.5, 5) == 2
    assert masks.pruned_count(0.999, 3) == 2


def test_magnitude_drops_the_smallest_of_all_or_of_each_layer() -> None:
    weights = {
        "small": torch.tensor([[0.1, -0.2], [0.3, -0.4]]),
        "large": torch.tensor([[-5.0, 6.0, 7.0, 8.0]]),
    }
    together = masks.magnitude_masks(weights, 0.5, "global")
    assert together["small"].tolist() == [[False, False], [False, False]]
    assert together["large"].tolist() == [[True, True, True, True]]
    each = masks.magnitude_masks(weights, 0.5, "layer")
    assert each["small"].tolist() == [[False, False], [True, True]]
    assert each["large"].tolist() == [[False, False, True, True]]


def test_equal_weights_do_not_change_how_many_go() -> None:
    kept = masks.magnitude_masks({"w": torch.ones(7, 9)}, 0.4, "global")["w"]
    assert int((~kept).sum()) == 25


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (2, 3)])
def test_a_pattern_keeps_exactly_the_n_largest_of_every_m(n: int, m: int) -> None:
    weight = torch.randn(6, 5 * m, generator=torch.Generator().manual_seed(0))
    kept = masks.keep_pattern_of_weight(weight, n, m).numpy()
    for row, group in np.ndindex(6, 5):
        part = slice(group * m, (group + 1) * m)
        largest = set(np.argsort(-np.abs(weight[row, part].numpy()))[:n])
        assert set(np.flatnonzero(kept[row, part])) == largest


def test_a_convolutions_pattern_runs_over_its_input_channels() -> None:
    weight = torch.randn(3, 8, 2, 5, generator=torch.Generator().manual_seed(0))
    kept = masks.keep_pattern_of_weight(weight, 2, 4)
    assert kept.shape == weight.shape
    assert (kept.reshape(3, 2, 4, 2, 5).sum(2) == 2).all()


def test_wanda_scores_and_compares_as_its_paper_says() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 10, generator=generator)
    inputs = torch.randn(50, 10, generator=generator) * torch.logspace(-1, 1, 10)
    scores = masks.wanda_scores(weight, inputs.T @ inputs)
    norms = [float(inputs[:, j].norm()) for j in range(10)]
    for i, j in np.ndindex(4, 10):
        assert float(scores[i, j]) == pytest.approx(abs(float(weight[i, j])) * norms[j], rel=1e-5)
    kept = masks.drop_lowest_of_rows(scores, 0.5)
    assert kept.sum(1).tolist() == [5] * 4
    for row in range(4):
        assert scores[row][kept[row]].min() >= scores[row][~kept[row]].max()


def test_the_output_error_is_that_of_the_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weight = (torch.randn(rows, 6, generator=generator).double() for rows in (40, 3))
    pruned = weight * masks.drop_lowest(weight.abs(), 9)
    expected = (inputs @ (weight - pruned).T).norm() / (inputs @ weight.T).norm()
    got = masks.relative_output_error(weight, pruned, inputs.T @ inputs)
    assert got == pytest.approx(float(expected))
    assert masks.relative_output_error(weight, pruned, torch.zeros(6, 6).double()) == 0


def test_the_cubic_schedule_is_the_papers() -> None:
    ratios = [masks.cubic_ratio(0.8, event, 4) for event in range(5)]
    assert ratios == pytest.approx([0.8 + (0 - 0.8) * (1 - event / 4) ** 3 for event in range(5)])
    steps = np.diff(ratios)
    assert ratios[-1] == 0.8
    assert (np.diff(steps) < 0).all()
