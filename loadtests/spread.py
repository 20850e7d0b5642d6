"""Numbers that vary from request to request: lengths in words or tokens, and pauses in seconds.

A bare number in a scenario is that number every time. Drawing takes a generator and gives an array; rounding
is left to whoever counts.
"""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from loadtests.config import Config, complaint


class Uniform(Config):
    """Every value from `low` to `high` alike."""

    kind: Literal["uniform"]
    low: NonNegativeFloat
    high: PositiveFloat

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.low > self.high:
            raise complaint("low is above high", at=("low",))
        return self


class Exponential(Config):
    """Mostly short, sometimes long, as pauses between independent events are."""

    kind: Literal["exponential"]
    mean: PositiveFloat
    high: PositiveFloat | None = None


class Lognormal(Config):
    """What lengths of real prompts and answers look like: half below `median`, a tail that `sigma` widens."""

    kind: Literal["lognormal"]
    median: PositiveFloat
    sigma: PositiveFloat = 0.8
    low: NonNegativeFloat = 0.0
    high: PositiveFloat | None = None


Spread = Annotated[Uniform | Exponential | Lognormal, Field(discriminator="kind")]


def draw(spread: Spread | float, generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """`count` values; those beyond the limits are moved to them."""
    match spread:
        case Uniform(low=low, high=high):
            return generator.uniform(low, high, count)
        case Exponential(mean=mean, high=high):
            return np.minimum(generator.exponential(mean, count), high or np.inf)
        case Lognormal(median=median, sigma=sigma, low=low, high=high):
            values = median * np.exp(sigma * generator.standard_normal(count))
            return np.clip(values, low, high or np.inf)
    return np.full(count, float(spread))


def draw_lengths(spread: Spread | float, generator: np.random.Generator, count: int) -> list[int]:
    """The same as whole numbers of at least one."""
    return [max(1, round(value)) for value in draw(spread, generator, count).tolist()]
