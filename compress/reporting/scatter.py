"""Quality against size: one point for each variant, the baseline marked."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compress.reporting.group import Group
from compress.reporting.labels import Box, Place, place
from compress.reporting.plots import Figure
from compress.reporting.svg import (
    CHARACTER,
    WIDTH,
    Axis,
    dot,
    drawing,
    element,
    label,
    line,
    logarithmic_if_wide,
    spanning,
    tick_label,
)
from runtime.manifest import Interval, Quality

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 56.0, WIDTH - 16.0, 30.0, 262.0, 300.0


@dataclass(frozen=True, slots=True)
class Point:
    """A variant, or the baseline as a variant's evidence has it: then without an interval."""

    name: str
    hue: str
    megabytes: float
    value: float
    interval: Interval | None


def scatter_figures(group: Group) -> Iterator[Figure]:
    """One for each metric."""
    for metric in group.metrics:
        points = list(_points(group, metric))
        if points:
            yield Figure(
                f"{metric.capitalize()} against size", _CAPTION, _draw(points, _first(group, metric))
            )


def _points(group: Group, metric: str) -> Iterator[Point]:
    for variant in group.variants:
        quality = variant.quality
        if variant.evidence and quality and quality.metric == metric and _drawable(quality):
            size = variant.evidence.size_bytes / 1e6
            yield Point(variant.name, variant.hue, size, quality.value, quality.interval)
    if len(group.compressed) == len(group.variants):
        yield from _implied_baseline(group, metric)


def _implied_baseline(group: Group, metric: str) -> Iterator[Point]:
    """Where the baseline itself is not among the bundles, what the first of them was compared with."""
    for variant in group.variants:
        quality = variant.quality
        if variant.evidence and quality and quality.metric == metric and math.isfinite(quality.baseline):
            size = variant.evidence.baseline_size_bytes / 1e6
            yield Point("baseline", "baseline", size, quality.baseline, None)
            return


def _drawable(quality: Quality) -> bool:
    return all(map(math.isfinite, (quality.value, quality.interval.low, quality.interval.high)))


def _first(group: Group, metric: str) -> Quality:
    return next(v.quality for v in group.variants if v.quality and v.quality.metric == metric)


def _draw(points: Sequence[Point], quality: Quality) -> Markup:
    bounds = [value for p in points if p.interval for value in (p.interval.low, p.interval.high)]
    x = logarithmic_if_wide([point.megabytes for point in points], LEFT + 16, RIGHT - 16)
    y = spanning([*bounds, *(point.value for point in points)], BOTTOM, TOP)
    direction = "higher" if quality.higher_is_better else "lower"
    scale = ", log scale" if x.log else ""
    return drawing(
        f"{quality.metric} against size",
        HEIGHT,
        _frame(x, y),
        label(LEFT - 44, TOP - 14, f"{quality.metric} ({direction} is better)", "axis-label"),
        label((LEFT + RIGHT) / 2, HEIGHT - 6, f"graph, MB{scale} (left is smaller)", "axis-label", "middle"),
        *(_baseline_line(point, y) for point in points if point.hue == "baseline"),
        *(_interval(point, x, y) for point in points),
        *_marks(points, x, y),
    )


def _frame(x: Axis, y: Axis) -> Markup:
    parts = [line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")]
    for tick in x.ticks():
        parts.append(line(x.at(tick), BOTTOM, x.at(tick), BOTTOM + 4, "axis"))
        parts.append(label(x.at(tick), BOTTOM + 17, tick_label(tick), "tick", "middle"))
    for tick in y.ticks():
        parts.append(line(LEFT, y.at(tick), RIGHT, y.at(tick), "grid"))
        parts.append(label(LEFT - 6, y.at(tick) + 4, tick_label(tick), "tick", "end"))
    return element("g", *parts)


def _baseline_line(point: Point, y: Axis) -> Markup:
    return line(LEFT, y.at(point.value), RIGHT, y.at(point.value), "reference")


def _interval(point: Point, x: Axis, y: Axis) -> Markup:
    if point.interval is None:
        return Markup("")
    at, low, high = x.at(point.megabytes), y.at(point.interval.low), y.at(point.interval.high)
    path = f"M{at - 4:.1f} {low:.1f}h8m-4 0V{high:.1f}m-4 0h8"
    return element("g", element("path", d=path, class_="own-interval"), class_=point.hue)


def _marks(points: Sequence[Point], x: Axis, y: Axis) -> list[Markup]:
    spots = [(x.at(point.megabytes), y.at(point.value)) for point in points]
    whiskers = [
        Box(at - 4, y.at(point.interval.high), at + 4, y.at(point.interval.low))
        for point, (at, _) in zip(points, spots, strict=True)
        if point.interval
    ]
    places = place(spots, [point.name for point in points], whiskers, Box(LEFT, TOP, WIDTH, BOTTOM))
    return [_mark(*each) for each in zip(points, spots, places, strict=True)]


def _mark(point: Point, spot: tuple[float, float], where: Place) -> Markup:
    parts = [label(where.x, where.y, point.name, "name")]
    if where.needs_leader:
        near = min(max(spot[0], where.x), where.x + len(point.name) * CHARACTER)
        parts.append(line(*spot, near, where.y + (3 if where.y < spot[1] else -11), "leader"))
    parts.append(dot(*spot, "ring" if point.hue == "baseline" else "point"))
    return element("g", *parts, class_=point.hue)


_CAPTION = (
    "The ring and the dashed line are the baseline. Whiskers are 95% intervals of each value by itself; "
    "whether two variants differ is what the paired drop says."
)
