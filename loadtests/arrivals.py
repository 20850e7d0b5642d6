"""When requests go out: pure functions from a rate, a duration and a random generator to planned send times.

Open loop: the times are drawn before the run and owe nothing to how fast the server answers. The same
generator at another rate gives the same arrivals stretched, and for a longer duration the same ones
continued, so that runs at several rates differ by the rate and not by the draw.
"""

import math

import numpy as np
from numpy.typing import NDArray

# Gaps are drawn in blocks of this many. It decides only how often numpy is called, not which gaps come out.
BLOCK = 4096


def constant(rate: float, duration: float) -> NDArray[np.float64]:
    """Planned send times in seconds, `1 / rate` apart, from 0 up to but not including `duration`."""
    times = np.arange(math.ceil(rate * duration)) / rate
    return times[times < duration]


def poisson(rate: float, duration: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """Planned send times in seconds of a Poisson process: independent exponential gaps of mean `1 / rate`."""
    gaps: list[NDArray[np.float64]] = []
    drawn = 0.0
    while drawn < duration * rate:
        gaps.append(generator.standard_exponential(BLOCK))
        drawn += float(gaps[-1].sum())
    times = np.cumsum(np.concatenate(gaps)) / rate
    return times[times < duration]
