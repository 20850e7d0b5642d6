"""The drawings of several runs: throughput against latency, and the intervals of a comparison."""

from collections.abc import Sequence

from markupsafe import Markup

from loadtests.compare import Comparison, Ratio
from loadtests.html import svg
from loadtests.html.figure import Figure
from loadtests.html.svg import HEIGHT, LEFT, RIGHT, WIDTH, Axis, Frame
from loadtests.point import Point, Series

PERCENTILES = ("p50", "p90", "p99")
VERDICT_HUES = {"better": "hue2", "worse": "hue1", "cannot tell": "baseline"}


def throughput_against_latency(series: Series) -> Figure | None:
    """A line through the points for each percentile, with the knee."""
    points = [found for found in series.points if _latency(found, "p50")]
    if not points:
        return None
    latencies = [value for found in points for name in PERCENTILES if (value := _latency(found, name))]
    rates = [found.summary.throughput_rps for found in points]
    wide = svg.log_if_wide(min(latencies), max(latencies))
    upward = (
        svg.upward(min(latencies), max(latencies), log=True) if wide else svg.upward(0, max(latencies) * 1.05)
    )
    frame = Frame(svg.across(0, max(rates) * 1.05), upward, "answered per second", "ms")
    names = [name for name in PERCENTILES if any(_latency(found, name) for found in points)]
    lines = [_line(frame, points, name, f"hue{number}") for number, name in enumerate(names)]
    drawn = svg.drawing("Throughput against latency", *frame.draw(), *_knee(frame, series), *_markup(lines))
    key = [(f"hue{number}", name) for number, name in enumerate(names)]
    caption = (
        "The dashed line is the knee, where throughput over mean latency is highest (Kleinrock's power)."
    )
    return Figure("Throughput against latency", drawn, caption, key)


def intervals(comparison: Comparison) -> Figure:
    """A whisker for each ratio, and the line on which nothing differs."""
    ratios = comparison.ratios
    low, high = min([found.low for found in ratios] + [0.95]), max([found.high for found in ratios] + [1.05])
    axis = Axis(low, high, LEFT + 70, WIDTH - RIGHT - 10, log=True)
    rows = [_whisker(axis, found, 34 + 38 * place) for place, found in enumerate(ratios)]
    bottom = HEIGHT - 38
    ticks = [
        svg.label(axis.at(value), bottom + 16, svg.number(value), "tick", "middle") for value in _ticks(axis)
    ]
    unit = svg.line(axis.at(1), 10, axis.at(1), bottom, "reference")
    name = svg.label((axis.start + axis.end) / 2, HEIGHT - 6, "second / first", "axis-label", "middle")
    drawn = svg.drawing("Ratios and their intervals", unit, *ticks, name, *_markup(rows))
    caption = "An interval that holds the dashed line says that nothing can be told."
    return Figure("Ratios", drawn, caption, [(hue, verdict) for verdict, hue in VERDICT_HUES.items()])


def _line(frame: Frame, points: Sequence[Point], name: str, hue: str) -> list[Markup]:
    places = [
        (frame.x.at(found.summary.throughput_rps), frame.y.at(value))
        for found in points
        if (value := _latency(found, name))
    ]
    return [
        svg.path(places, f"line {hue}"),
        *(svg.element("circle", cx=x, cy=y, r=3.5, class_=hue) for x, y in places),
    ]


def _knee(frame: Frame, series: Series) -> list[Markup]:
    if series.knee is None:
        return []
    found = series.points[series.knee]
    x = frame.x.at(found.summary.throughput_rps)
    text = svg.label(
        x - 4,
        frame.y.end + 10,
        f"knee: {found.load:.4g} {series.unit}",
        "tick",
        "end" if x > 200 else "start",
    )
    return [svg.line(x, frame.y.start, x, frame.y.end, "reference"), text]


def _whisker(axis: Axis, found: Ratio, y: float) -> list[Markup]:
    hue = VERDICT_HUES[found.verdict]
    return [
        svg.label(8, y + 4, found.measure),
        svg.line(axis.at(found.low), y, axis.at(found.high), y, f"line {hue}"),
        svg.element("circle", cx=axis.at(found.ratio), cy=y, r=4, class_=hue),
    ]


def _ticks(axis: Axis) -> list[float]:
    """Linear ones, unless the ratios' axis spans a decade, as it rarely does."""
    return Axis(axis.low, axis.high, 0, 1, log=axis.high / axis.low >= 10).ticks()


def _latency(found: Point, name: str) -> float | None:
    return found.summary.latency_ms.percentiles[name].value if found.summary.latency_ms else None


def _markup(groups: Sequence[Sequence[Markup]]) -> list[Markup]:
    return [part for group in groups for part in group]
