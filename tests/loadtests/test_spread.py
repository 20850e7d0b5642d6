import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from loadtests.spread import Spread, draw, draw_lengths


def spread(**keys):
    return TypeAdapter[Spread](Spread).validate_python(keys)


def values(**keys):
    return draw(spread(**keys), np.random.default_rng(0), 20_000)


def test_each_kind_has_its_middle():
    assert values(kind="uniform", low=2, high=6).mean() == pytest.approx(4, rel=0.02)
    assert values(kind="exponential", mean=3).mean() == pytest.approx(3, rel=0.03)
    assert np.median(values(kind="lognormal", median=50, sigma=1)) == pytest.approx(50, rel=0.03)


def test_limits_hold():
    assert values(kind="exponential", mean=3, high=4).max() == 4
    drawn = values(kind="lognormal", median=50, sigma=1, low=20, high=90)
    assert (drawn.min(), drawn.max()) == (20, 90)


def test_a_bare_number_is_that_number_and_lengths_are_at_least_one():
    assert draw(2.5, np.random.default_rng(0), 3).tolist() == [2.5] * 3
    assert draw_lengths(0.2, np.random.default_rng(0), 2) == [1, 1]


def test_a_range_upside_down_is_refused():
    with pytest.raises(ValidationError, match="low is above high"):
        spread(kind="uniform", low=3, high=2)
