"""When requests go out: pure functions from rates and a random generator to planned send times.

Open loop: the times are drawn before the run and owe nothing to how fast the server answers. Every kind of
arrivals is one process of rate 1 whose clock is stretched to the wanted rates (time rescaling: Cox and
Isham, Point Processes, 1980, 4.2). So the same generator at another rate gives the same arrivals stretched,
and for a longer duration the same ones continued, and runs at several rates differ by the rate and not by
the draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Gaps are drawn in blocks of this many. It decides only how often numpy is called, not which gaps come out.
BLOCK = 4096

# Rounding may put the last of evenly spaced times onto the end of the run instead of before it.
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Stage:
    """`duration` seconds in which the rate goes linearly from `start` to `end` requests a second."""

    duration: float
    start: float
    end: float

    @property
    def expected(self) -> float:
        return self.duration * (self.start + self.end) / 2


def constant(rate: float, duration: float) -> NDArray[np.float64]:
    """Planned send times in seconds, `1 / rate` apart, from 0 up to but not including `duration`."""
    return staged([Stage(duration, rate, rate)], 0.0, np.random.default_rng(0))


def poisson(rate: float, duration: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Planned send times in seconds of a Poisson process: independent exponential gaps of mean `1 / rate`."""
    return gamma(rate, duration, 1.0, generator)


def gamma(rate: float, duration: float, cv: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Independent gaps of mean `1 / rate` and coefficient of variation `cv`: bursts where that is above 1."""
    return staged([Stage(duration, rate, rate)], cv, generator)


def staged(stages: Sequence[Stage], cv: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Planned send times in seconds through the stages, one after the other."""
    expected = np.array([stage.expected for stage in stages])
    ends = np.cumsum(expected)
    units = _units(float(ends[-1]), cv, generator)
    within = np.minimum(np.searchsorted(ends, units, side="right"), len(stages) - 1)
    begins = np.cumsum([stage.duration for stage in stages]) - [stage.duration for stage in stages]
    start = np.array([stage.start for stage in stages])[within]
    slope = np.array([(stage.end - stage.start) / stage.duration for stage in stages])[within]
    into = units - (ends - expected)[within]
    # The inverse of start t + slope t² / 2, in the form that also holds where the slope is zero.
    root = np.sqrt(np.maximum(start**2 + 2 * slope * into, 0.0))
    times: NDArray[np.float64] = begins[within] + np.divide(
        2 * into, start + root, out=np.zeros_like(into), where=into > 0
    )
    return times[times < sum(stage.duration for stage in stages)]


def _units(expected: float, cv: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """The times of a process of rate 1 up to `expected`: evenly spaced ones where `cv` is 0."""
    if cv == 0:
        return np.arange(np.ceil(expected - TOLERANCE), dtype=np.float64)
    gaps: list[NDArray[np.float64]] = []
    drawn = 0.0
    while drawn < expected:
        gaps.append(_gaps(cv, generator))
        drawn += float(gaps[-1].sum())
    times = np.cumsum(np.concatenate(gaps)) if gaps else np.zeros(0)
    return times[times < expected]


def _gaps(cv: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Gamma distributed with mean 1 has shape `1 / cv²`; with `cv` 1 it is the exponential distribution."""
    if cv == 1:
        return generator.standard_exponential(BLOCK)
    return generator.standard_gamma(1 / cv**2, BLOCK) * cv**2
