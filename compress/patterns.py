"""Which layers a step works on: shell patterns over their names, refused where they match nothing."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from compress.errors import StepError
from runtime.suggest import nearest

# A message lists this many names; a network has hundreds.
SHOWN = 6


def select_names(
    method: str, what: str, names: Sequence[str], targets: Sequence[str], exclude: Sequence[str]
) -> list[str]:
    """The names that a pattern of `targets` matches and none of `exclude` does, in order.

    Raises StepError, on behalf of `method`, for a pattern that matches no layer (`what` it wants), and where
    nothing is left.
    """
    for key, patterns in (("targets", targets), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise StepError(f"{method}: {key}: '{pattern}' matches no {what}; {_hint(pattern, names)}")
    chosen = [name for name in names if _matches(name, targets) and not _matches(name, exclude)]
    if not chosen:
        raise StepError(f"{method}: exclude: every layer that 'targets' match is excluded; exclude fewer")
    return chosen


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _hint(pattern: str, names: Sequence[str]) -> str:
    near = nearest(pattern, names)
    return near if len(names) <= SHOWN or near.startswith("did you mean") else f"there is {some(names)}"
