from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.quantize.assignment import least_damage, smallest_within, total_size, within

LAYERS = st.integers(1, 5).flatmap(
    lambda count: st.tuples(
        *[st.lists(st.lists(st.integers(1, 60), min_size=3, max_size=3), min_size=count, max_size=count)] * 2
    )
)


@settings(max_examples=60)
@given(LAYERS, st.floats(0, 1))
def test_no_choice_within_a_budget_does_less_damage(layers: tuple[list, list], share: float) -> None:
    """Against every choice there is."""
    sizes, damages = layers
    budget = share * sum(map(max, sizes))
    fitting = [
        choice for choice in product(range(3), repeat=len(sizes)) if total_size(choice, sizes) <= budget
    ]
    front = least_damage(sizes, damages)
    number = within(front, sizes, budget)
    if not fitting:
        assert number is None
        return
    assert number is not None
    least = min(total_size(choice, damages) for choice in fitting)
    assert total_size(front[number], damages) == least


def test_the_front_goes_from_small_and_bad_to_large_and_good() -> None:
    rng = np.random.default_rng(0)
    sizes = [[4 * n, 8 * n, 16 * n] for n in rng.integers(1000, 90_000, 30).tolist()]
    damages = [[d, d / 200, 0.0] for d in rng.exponential(1, 30).tolist()]
    front = least_damage(sizes, damages)
    totals = [total_size(choice, sizes) for choice in front]
    lost = [sum(layer[taken] for layer, taken in zip(damages, choice, strict=True)) for choice in front]
    assert (front[0], front[-1]) == ([0] * 30, [2] * 30)
    assert lost == sorted(lost, reverse=True)
    # Rounding up to units may swap neighbours, by no more than one unit a layer.
    assert all(later >= earlier * 0.99 for earlier, later in pairwise(totals))


def test_the_most_harmful_of_equal_layers_gets_the_bits_first() -> None:
    front = least_damage([[4, 8]] * 3, [[1.0, 0.0], [9.0, 0.0], [3.0, 0.0]])
    assert front == [[0, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("budget", [0, 11])
def test_nothing_fits_a_budget_below_the_smallest(budget: float) -> None:
    assert within(least_damage([[4, 8]] * 3, [[1.0, 0.0]] * 3), [[4, 8]] * 3, budget) is None


def test_the_smallest_number_within_a_limit_is_found_by_few_measurements() -> None:
    for boundary in range(100):
        number, drops = smallest_within(100, lambda tried, b=boundary: 1.0 if tried < b else 0.5, 0.7)
        assert number == boundary
        assert len(drops) <= 8
    assert smallest_within(3, lambda tried: 1.0, 0.7) == (None, {2: 1.0})
    assert smallest_within(3, lambda tried: float("nan"), 0.7)[0] is None
