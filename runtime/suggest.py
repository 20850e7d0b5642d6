"""The end of an error message about a name that does not exist: the nearest one, or all of them."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` when one of `known` is near `name`, else the list of them."""
    choices = sorted(set(known))
    near = get_close_matches(name, choices, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"there is {', '.join(choices)}" if choices else "there is none"
