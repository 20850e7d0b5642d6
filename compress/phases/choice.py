"""Which graphs to keep, and which runs which calls. Pure arithmetic on measured times.

With a handful of candidates every subset is looked at; nothing is approximated.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import exp, log

# Seconds of a call by its number of tokens.
Times = Mapping[int, float]


def choose(
    times: Mapping[str, Times], sizes: Mapping[str, int], budget: float, min_gain: float
) -> list[tuple[int, str]]:
    """(from how many tokens on, graph) in ascending order, the first from 1 token.

    Of the subsets whose `sizes` in bytes fit `budget`, the one of fewest graphs that no larger one beats by
    `min_gain` in the geometric mean over the calls. Where none fits, the smallest graph alone.
    """
    best, pace = [min(sizes, key=lambda name: sizes[name])], float("inf")
    for count in range(1, len(times) + 1):
        for names in combinations(times, count):
            if sum(sizes[name] for name in names) > budget:
                continue
            found = _mean_pace(times, names)
            if found * (1 + (min_gain if count > len(best) else 0)) < pace:
                best, pace = list(names), found
    return _schedule(times, best)


def _schedule(times: Mapping[str, Times], names: Sequence[str]) -> list[tuple[int, str]]:
    """The fastest of `names` for each size, neighbours of one graph joined."""
    schedule: list[tuple[int, str]] = []
    for tokens in sorted(times[names[0]]):
        fastest = min(names, key=lambda name: times[name][tokens])
        if not schedule or schedule[-1][1] != fastest:
            schedule.append((tokens if schedule else 1, fastest))
    return schedule


def _mean_pace(times: Mapping[str, Times], names: Sequence[str]) -> float:
    """Geometric mean, over the sizes of a call, of the fastest time among `names`."""
    calls = times[names[0]]
    return exp(sum(log(min(times[name][tokens] for name in names)) for tokens in calls) / len(calls))
