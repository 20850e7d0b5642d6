"""Horizontal plots with a row for each variant: its name and figures in words, and its marks underneath.

The words stand above the marks and not beside them, so that long names and narrow screens get along.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compress.reporting.svg import CHARACTER, WIDTH, Axis, drawing, element, label, line, shorten, tick_label

LEFT, RIGHT = 12.0, WIDTH - 14.0
ROW = 42.0
TEXT, MARKS = 14.0, 26.0
HEAD, FOOT = 18.0, 38.0

Draw = Callable[[Axis, float], Sequence[Markup]]


@dataclass(frozen=True, slots=True)
class Row:
    """One variant. `draw` puts its marks on the axis at a height; None where there is nothing to draw."""

    name: str
    figures: str
    hue: str
    draw: Draw | None


@dataclass(frozen=True, slots=True)
class Reference:
    """A value with a name that the rows are read against."""

    value: float
    name: str


def rows_plot(
    title: str, rows: Sequence[Row], axis: Axis, axis_label: str, reference: Reference | None = None
) -> Markup:
    """The rows, one under the other, over one axis."""
    bottom = HEAD + ROW * len(rows)
    parts = [_grid(axis, bottom), _axis_label(axis_label, bottom)]
    if reference:
        parts.append(_reference(reference, axis, bottom))
    parts += [_row(row, axis, HEAD + ROW * index) for index, row in enumerate(rows)]
    return drawing(title, bottom + FOOT, *parts)


def _row(row: Row, axis: Axis, top: float) -> Markup:
    marks = row.draw(axis, top + MARKS) if row.draw else ()
    room = int((RIGHT - LEFT) / CHARACTER) - len(row.figures) - 2
    return element(
        "g",
        label(LEFT, top + TEXT, shorten(row.name, max(room, 8)), "name"),
        label(RIGHT, top + TEXT, row.figures, "figures" if row.draw else "missing", "end"),
        *marks,
        class_=row.hue,
    )


def _grid(axis: Axis, bottom: float) -> Markup:
    parts = [line(LEFT, bottom, RIGHT, bottom, "axis")]
    for tick in axis.ticks():
        x = axis.at(tick)
        parts.append(line(x, HEAD, x, bottom, "grid"))
        parts.append(label(x, bottom + 14, tick_label(tick), "tick", "middle"))
    return element("g", *parts)


def _axis_label(text: str, bottom: float) -> Markup:
    return label(WIDTH / 2, bottom + 31, text, "axis-label", "middle")


def _reference(reference: Reference, axis: Axis, bottom: float) -> Markup:
    x, half = axis.at(reference.value), len(reference.name) * CHARACTER / 2
    centre = min(max(x, LEFT + half), RIGHT - half)
    return element(
        "g",
        line(x, HEAD, x, bottom, "reference"),
        label(centre, HEAD - 6, reference.name, "reference-name", "middle"),
    )
