"""Inline SVG from Python: elements, axes and their ticks. It knows nothing of bundles.

Colours and fonts are `page.css`'s, so a drawing follows the page into dark mode. One user unit is about a
pixel on a phone: a plot is `WIDTH` wide and scales up from there, never down into the unreadable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 380

# Advance of a character at the size that plots write in (12 units), averaged over digits and lower case.
CHARACTER = 6.6

# An axis turns logarithmic where its largest value is this many times its smallest.
LOG_FROM = 4.0

# Nice steps, as in D3 and most plotting libraries.
STEPS = (1, 2, 5, 10)

# On a logarithmic axis, the coarsest of these that shows more than two.
LOG_STEPS = ((1,), (1, 2, 5), (1, 2, 3, 5, 7))


@dataclass(frozen=True, slots=True)
class Axis:
    """Data from `low` to `high` onto user units from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where `value` is drawn."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        if self.log and len(found := _log_ticks(self.low, self.high)) > 1:
            return found
        return _linear_ticks(self.low, self.high)


def spanning(values: Sequence[float], start: float, end: float, margin: float = 0.08) -> Axis:
    """A linear axis around `values` with some room at both ends; a single value gets room of its own."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    return Axis(low - room, high + room, start, end)


def from_zero(values: Sequence[float], start: float, end: float) -> Axis:
    """A linear axis from zero: lengths on it compare."""
    return Axis(0.0, max(values) * 1.04 or 1.0, start, end)


def logarithmic_if_wide(values: Sequence[float], start: float, end: float) -> Axis:
    """A logarithmic axis where positive `values` span much, else a linear one."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOG_FROM:
        room = (high / low) ** 0.1
        return Axis(low / room, high * room, start, end, log=True)
    return spanning(values, start, end, 0.15)


def element(name: str, *children: str, **attributes: object) -> Markup:
    """One element, its texts and values escaped; `class_` is `class` and `text_anchor` is `text-anchor`."""
    pairs = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), pairs, Markup("").join(map(escape, children)))


def drawing(title: str, height: float, *children: str) -> Markup:
    """A whole plot; `title` is what a screen reader says."""
    box = f"0 0 {WIDTH} {height:g}"
    return element("svg", element("title", title), *children, viewBox=box, role="img", class_="plot")


def label(x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> Markup:
    """Text with its baseline at `y`."""
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def dot(x: float, y: float, class_: str, radius: float = 5) -> Markup:
    """A point."""
    return element("circle", cx=x, cy=y, r=radius, class_=class_)


def whisker(axis: Axis, low: float, high: float, y: float, class_: str = "whisker", cap: float = 4) -> Markup:
    """A horizontal interval with caps, cut off where the axis ends."""
    left, right = (min(max(axis.at(value), axis.start), axis.end) for value in (low, high))
    path = f"M{left:.1f} {y - cap:.1f}v{2 * cap}m0 {-cap}H{right:.1f}m0 {-cap}v{2 * cap}"
    return element("path", d=path, class_=class_)


def shorten(text: str, room: int) -> str:
    """At most `room` characters."""
    return text if len(text) <= room else text[: room - 1] + "…"


def tick_label(value: float) -> str:
    """Without the digits that binary fractions bring along."""
    return f"{value:.6g}"


def _plain(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(nice for nice in STEPS if nice * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for nice in LOG_STEPS:
        values = [step * 10.0**exponent for exponent in exponents for step in nice]
        found = [value for value in values if low <= value <= high]
        if len(found) > 2:
            break
    return found
