"""Inline SVG from Python: elements, a plot's frame with two axes, and what is drawn in it.

It knows nothing of load tests. Colours and fonts are `page.css`'s, so a drawing follows the page into dark
mode. One user unit is about a pixel on a phone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 38

# Nice steps, as in D3 and most plotting libraries.
STEPS = (1, 2, 5, 10)

# An axis turns logarithmic where its largest value is this many times its smallest.
LOG_FROM = 4.0

# Powers of ten get company on an axis that spans few of them.
FEW_DECADES = 2.0


@dataclass(frozen=True, slots=True)
class Axis:
    """Data from `low` to `high` onto user units from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else _linear_ticks(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Frame:
    """Both axes of a plot, and what they are of."""

    x: Axis
    y: Axis
    x_label: str
    y_label: str

    def draw(self) -> Iterator[Markup]:
        for value in self.y.ticks():
            y = self.y.at(value)
            yield line(LEFT, y, WIDTH - RIGHT, y, "grid")
            yield label(LEFT - 6, y + 4, number(value), "tick", "end")
        for value in self.x.ticks():
            yield label(self.x.at(value), HEIGHT - BOTTOM + 15, number(value), "tick", "middle")
        yield line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis")
        yield label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x_label, "axis-label", "middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = f"rotate(-90 12 {middle:g})"
        yield element(
            "text", self.y_label, x=12, y=middle, text_anchor="middle", class_="axis-label", transform=turned
        )


def across(low: float, high: float, log: bool = False) -> Axis:
    """A horizontal axis."""
    return _axis(low, high, LEFT, WIDTH - RIGHT, log)


def upward(low: float, high: float, log: bool = False) -> Axis:
    """A vertical axis."""
    return _axis(low, high, HEIGHT - BOTTOM, TOP, log)


def drawing(title: str, *children: Markup) -> Markup:
    """A whole plot; `title` is what a screen reader says."""
    box = f"0 0 {WIDTH} {HEIGHT}"
    return element("svg", element("title", title), *children, viewBox=box, role="img", class_="plot")


def element(name: str, *children: str, **attributes: object) -> Markup:
    """One element, its texts and values escaped; `class_` is `class` and `text_anchor` is `text-anchor`."""
    pairs = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), pairs, Markup("").join(map(escape, children)))


def label(x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A line through points in user units."""
    return element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def steps(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A staircase: each height holds until the next point."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}", *(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])]
    return element("path", d="".join(parts), class_=class_)


def dots(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Many small points in one element: each is a line of no length with a round end."""
    return element("path", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in points), class_=f"dots {class_}")


def rectangle(x: float, y: float, width: float, height: float, class_: str, opacity: float = 1.0) -> Markup:
    shade = {} if opacity == 1.0 else {"fill_opacity": f"{opacity:.2f}"}
    return element("rect", x=x, y=y, width=width, height=height, class_=class_, **shade)


def number(value: float) -> str:
    """Without the digits that binary fractions bring along."""
    return f"{value:.6g}"


def log_if_wide(low: float, high: float) -> bool:
    """Whether the values span so much that small differences among the small ones would not show."""
    return low > 0 and high / low >= LOG_FROM


def _axis(low: float, high: float, start: float, end: float, log: bool) -> Axis:
    if log and low > 0:
        return Axis(low / 1.1, max(high, low * 1.5) * 1.1, start, end, log=True)
    return Axis(low, high if high > low else low + 1.0, start, end)


def _plain(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(nice for nice in STEPS if nice * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    nice = (1, 2, 5) if math.log10(high / low) < FEW_DECADES else (1,)
    found = [step * 10.0**exponent for exponent in exponents for step in nice]
    return [value for value in found if low <= value <= high]
