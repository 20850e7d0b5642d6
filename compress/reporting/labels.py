"""Names beside the points of a scatter plot, placed so that none covers another. Pure geometry, greedy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compress.reporting.svg import CHARACTER, WIDTH

HEIGHT = 12.0
POINT = 8.0


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name starts, and its baseline. `moved` ones are too far away to go without a line."""

    x: float
    y: float
    moved: bool


def place(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    obstacles: Sequence[Box],
    top: float,
    bottom: float,
) -> list[Place]:
    """A place for each name, as near to its point as the other names, points and `obstacles` allow."""
    taken = [*obstacles, *(Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points)]
    places = []
    for (x, y), name in zip(points, names, strict=True):
        found = _first_free(x, y, len(name) * CHARACTER, taken, Box(0, top, WIDTH, bottom))
        taken.append(found[1])
        places.append(found[0])
    return places


def _first_free(x: float, y: float, width: float, taken: Sequence[Box], frame: Box) -> tuple[Place, Box]:
    candidates = list(_candidates(x, y, width, frame))
    free = (found for found in candidates if not any(found[1].meets(box) for box in taken))
    return next(free, candidates[0])


def _candidates(x: float, y: float, width: float, frame: Box) -> Iterator[tuple[Place, Box]]:
    """Beside the point first, and then above and below it, further and further away."""
    distances = [0, *(side * step for step in range(14, 150, 7) for side in (-1, 1))]
    for away in distances:
        for left in (x + 10, x - width - 10, x - width / 2):
            box = Box(left, y + away - HEIGHT / 2, left + width, y + away + HEIGHT / 2)
            inside = frame.left <= box.left and box.right <= frame.right
            if inside and frame.top <= box.top and box.bottom <= frame.bottom:
                yield Place(left, y + away + 4, abs(away) > 20), box
    yield Place(min(x, frame.right - width), y - 12, False), Box(x, y, x, y)
