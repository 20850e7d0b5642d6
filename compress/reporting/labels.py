"""Names beside the points of a scatter plot, placed so that none covers another. Pure geometry, greedy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compress.reporting.svg import CHARACTER

# User units: of a line of text, around a point, and how far off a name is near or needs a line to its point.
HEIGHT = 12.0
POINT = 8.0
NEAR, FAR = 14.0, 20.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in user units."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def is_within(self, frame: "Box") -> bool:
        """Whether all of it is in `frame`."""
        return (
            frame.left <= self.left
            and self.right <= frame.right
            and frame.top <= self.top
            and self.bottom <= frame.bottom
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name starts, its baseline, and how far above or below its point that is."""

    x: float
    y: float
    away: float

    @property
    def needs_leader(self) -> bool:
        """Whether it is too far away to go without a line."""
        return self.away > FAR


def place(
    points: Sequence[tuple[float, float]], names: Sequence[str], whiskers: Sequence[Box], frame: Box
) -> list[Place]:
    """A place within `frame` for each name, off the points and the other names.

    It is off the whiskers too if that takes it no further than `NEAR` from its point: better a name across
    a whisker than one that needs looking for.
    """
    taken = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    places = []
    for (x, y), name in zip(points, names, strict=True):
        candidates = list(_candidates(x, y, len(name) * CHARACTER, frame))
        near = [found for found in candidates if found[0].away <= NEAR]
        chosen = _first_free(near, [*taken, *whiskers]) or _first_free(candidates, taken) or candidates[-1]
        taken.append(chosen[1])
        places.append(chosen[0])
    return places


def _first_free(candidates: Sequence[tuple[Place, Box]], taken: Sequence[Box]) -> tuple[Place, Box] | None:
    free = (found for found in candidates if not any(found[1].meets(box) for box in taken))
    return next(free, None)


def _candidates(x: float, y: float, width: float, frame: Box) -> Iterator[tuple[Place, Box]]:
    """Beside the point first, and then above and below it, further and further away; one at least."""
    distances = [0, *(side * step for step in range(14, 150, 7) for side in (-1, 1))]
    for away in distances:
        for left in (x + 10, x - width - 10, x - width / 2):
            box = Box(left, y + away - HEIGHT / 2, left + width, y + away + HEIGHT / 2)
            if box.is_within(frame):
                yield Place(left, y + away + 4, abs(away)), box
    left = min(x, frame.right - width)
    yield Place(left, y - 12, 0), Box(left, y - 22, left + width, y - 8)
