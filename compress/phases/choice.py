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

    Of the subsets whose `sizes` in bytes fit `budget`, the one that is fastest in the geometric mean over the
    calls; of more graphs than another only where some size of call is faster by `min_gain` than with that
    one. Where none fits, the smallest graph alone.
    """
    best: tuple[str, ...] = ()
    for count in range(1, len(times) + 1):
        fitting = [
            names for names in combinations(times, count) if sum(map(sizes.__getitem__, names)) <= budget
        ]
        if not fitting:
            break
        fastest = min(fitting, key=lambda names: _mean_pace(times, names))
        if not best or _largest_gain(times, best, fastest) >= min_gain:
            best = fastest
    return _schedule(times, best or (min(sizes, key=sizes.__getitem__),))


def _schedule(times: Mapping[str, Times], names: Sequence[str]) -> list[tuple[int, str]]:
    """The fastest of `names` for each size, neighbours of one graph joined."""
    schedule: list[tuple[int, str]] = []
    for tokens in sorted(times[names[0]]):
        fastest = min(names, key=lambda name: times[name][tokens])
        if not schedule or schedule[-1][1] != fastest:
            schedule.append((tokens if schedule else 1, fastest))
    return schedule


def _largest_gain(times: Mapping[str, Times], fewer: Sequence[str], more: Sequence[str]) -> float:
    """By how much `more` graphs make the size of call faster that gains most. Users of that size feel it all,
    which a mean over sizes would hide."""
    return max(_fastest(times, fewer, n) / _fastest(times, more, n) for n in times[more[0]]) - 1


def _mean_pace(times: Mapping[str, Times], names: Sequence[str]) -> float:
    """Geometric mean, over the sizes of a call, of the fastest time among `names`."""
    calls = times[names[0]]
    return exp(sum(log(_fastest(times, names, tokens)) for tokens in calls) / len(calls))


def _fastest(times: Mapping[str, Times], names: Sequence[str], tokens: int) -> float:
    return min(times[name][tokens] for name in names)
