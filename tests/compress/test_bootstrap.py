import numpy as np

from compress.bootstrap import interval


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    data = np.random.default_rng(0).normal(5, 2, 400)
    found = interval(lambda rows: float(data[rows].mean()), len(data))
    error = 1.96 * data.std() / np.sqrt(len(data))
    assert abs(found.low - (data.mean() - error)) < 0.05
    assert abs(found.high - (data.mean() + error)) < 0.05


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        data = rng.random(100) < 0.7
        found = interval(lambda rows, data=data: float(data[rows].mean()), 100)
        hits += found.low <= 0.7 <= found.high
    assert hits >= 52


def test_pairing_cancels_what_both_share() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, 300)
    ours, theirs = hard + rng.normal(0.5, 0.1, 300), hard
    paired = interval(lambda rows: float((ours[rows] - theirs[rows]).mean()), 300)
    assert 0.45 < paired.low < paired.high < 0.55


def test_resamples_without_a_figure_are_left_out() -> None:
    data = np.array([1.0, 2.0])

    def spread_alone(rows: np.ndarray) -> float:
        return float(data[rows].mean()) if len(set(rows)) > 1 else float("nan")

    found = interval(spread_alone, 2)
    assert (found.low, found.high) == (1.5, 1.5)
