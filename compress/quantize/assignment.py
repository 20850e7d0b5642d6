"""Which layer gets how many bits: an exact choice under a budget. Pure numpy, no model.

A multiple-choice knapsack: each layer takes one of its formats, sizes and damages add up. Dynamic programming
over the total size, in units of a 1/4096 of the largest, finds the least damage for every size at once. That
damages add up is what mixed-precision methods assume (HAWQ-V2, Dong et al., arXiv:1911.03852): errors
of different layers hardly correlate; how far it holds is measured afterwards, on the graph that was made.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

UNITS = 4096


def least_damage(sizes: Sequence[Sequence[int]], damages: Sequence[Sequence[float]]) -> list[list[int]]:
    """The choices on the front: each the least damage of its size, from the smallest total to the largest.

    `sizes` and `damages` [layers][formats]; a choice is one format number a layer. Sizes are rounded up to
    units, so a choice is never larger than it says.
    """
    largest = sum(max(each) for each in sizes)
    unit = max(largest / UNITS, 1.0)
    steps = [np.ceil(np.array(each) / unit).astype(int) for each in sizes]
    total = sum(int(each.max()) for each in steps)
    best, came_from = np.zeros(total + 1), []
    best[1:] = np.inf
    for layer, damage in zip(steps, damages, strict=True):
        best, taken = _with_layer(best, layer, damage)
        came_from.append(taken)
    return _front(best, steps, came_from)


def within(choices: Sequence[Sequence[int]], sizes: Sequence[Sequence[int]], budget: float) -> int | None:
    """The number of the last of `choices` whose sizes add up to at most `budget`; None if none does."""
    fitting = [number for number, choice in enumerate(choices) if total_size(choice, sizes) <= budget]
    return fitting[-1] if fitting else None


def smallest_within(
    count: int, drop: Callable[[int], float], limit: float
) -> tuple[int | None, dict[int, float]]:
    """The number below `count` where `drop` comes to `limit` or less, and every drop that was measured.

    By bisection, with about log2(count) measurements: drops are taken to fall as numbers grow. What noise
    makes of that can cost bits, not quality: the number that is given was itself measured within the limit.
    None where the last number is not.
    """
    drops = {count - 1: drop(count - 1)}
    if not drops[count - 1] <= limit:
        return None, drops
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        drops[middle] = drop(middle)
        low, high = (low, middle) if drops[middle] <= limit else (middle + 1, high)
    return high, drops


def total_size(choice: Sequence[int], sizes: Sequence[Sequence[int]]) -> int:
    """The sizes of one choice, added up."""
    return sum(layer[taken] for layer, taken in zip(sizes, choice, strict=True))


def _with_layer(
    best: Doubles, sizes: npt.NDArray[np.int_], damages: Sequence[float]
) -> tuple[Doubles, npt.NDArray[np.int8]]:
    """Least damage by size with one more layer, and which of its formats gives it."""
    tried = np.full((len(sizes), len(best)), np.inf)
    for number, (size, damage) in enumerate(zip(sizes, damages, strict=True)):
        tried[number, size:] = best[: len(best) - size] + damage
    taken = tried.argmin(0)
    return tried[taken, np.arange(len(best))], taken.astype(np.int8)


def _front(
    best: Doubles, steps: Sequence[npt.NDArray[np.int_]], came_from: Sequence[npt.NDArray[np.int8]]
) -> list[list[int]]:
    """Walk back from every size that is better than all smaller ones."""
    found, least = [], np.inf
    for size in range(len(best)):
        if best[size] < least:
            least = best[size]
            found.append(_walk(size, steps, came_from))
    return found


def _walk(
    size: int, steps: Sequence[npt.NDArray[np.int_]], came_from: Sequence[npt.NDArray[np.int8]]
) -> list[int]:
    choice = []
    for layer, taken in zip(reversed(steps), reversed(came_from), strict=True):
        number = int(taken[size])
        choice.append(number)
        size -= int(layer[number])
    return choice[::-1]
