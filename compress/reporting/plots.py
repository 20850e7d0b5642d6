"""The report's plots: quality against size, latency, served latency, and the drop as a forest plot.

Each takes a group and gives figures, or none where there is nothing to draw. A value that is not finite
is left to the tables.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from compress.reporting import words
from compress.reporting.group import Group, Variant
from compress.reporting.rows import LEFT, RIGHT, Draw, Reference, Row, rows_plot
from compress.reporting.served import Distribution, LoadTest, Unreadable
from compress.reporting.svg import Axis, dot, element, from_zero, line, logarithmic_if_wide, spanning, whisker
from runtime.manifest import Latency, Quality

BAR = 10.0

# A forest plot of drops that are all zero still needs a scale: a tenth of a point, or of a percent, each way.
LEAST_DROP = 0.1

Measure = Literal["latency", "ttft"]
MEASURES: dict[Measure, str] = {"latency": "Served latency", "ttft": "Served time to first token"}


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing under its title, and how to read it."""

    title: str
    caption: str
    svg: Markup
    notes: list[str] = field(default_factory=list)


def latency_figures(group: Group) -> Iterator[Figure]:
    """One for each workload, since their times are of different orders."""
    caption = _LATENCY_CAPTION
    for workload in group.workloads:
        found = [(variant, variant.latency(workload)) for variant in group.variants]
        drawn = [record for _, record in found if record and _is_drawable(record)]
        if not drawn:
            continue
        title = f"Latency in process: {workload}"
        svg = rows_plot(
            title,
            [_latency_row(variant, record) for variant, record in found],
            from_zero([value for record in drawn for value in _times(record)], LEFT, RIGHT),
            "median, ms (shorter is better)",
            _median_baseline(drawn),
        )
        yield Figure(title, caption, svg)
        caption = "Read as the one before."


def served_figures(group: Group) -> Iterator[Figure]:
    """Latency, and the time to the first token where answers were streamed; nothing if nothing was served."""
    for measure, title in MEASURES.items():
        found = [(variant, _distribution(variant, measure)) for variant in group.variants]
        times = [value for _, distribution in found if distribution for value in _ends(distribution)]
        if not times:
            continue
        axis = logarithmic_if_wide(times, LEFT + 8, RIGHT - 8)
        svg = rows_plot(
            title,
            [_served_row(variant, distribution) for variant, distribution in found],
            axis,
            f"ms{' (log scale)' if axis.log else ''}, from the planned send (left is better)",
        )
        yield Figure(title, _SERVED_CAPTION, svg, list(_served_notes(group)))


def drop_figures(group: Group) -> Iterator[Figure]:
    """One forest plot for each metric."""
    for metric in group.metrics:
        judged = [(v, v.quality) for v in group.compressed if v.quality and v.quality.metric == metric]
        drops = [v for _, quality in judged for v in _drops(quality) if math.isfinite(v)]
        if not drops:
            continue
        reach = LEAST_DROP if max(map(abs, drops)) == 0 else 0.0
        axis = spanning([*drops, 0.0, -reach, reach], LEFT + 8, RIGHT - 8)
        title = f"Drop in quality: {metric}"
        svg = rows_plot(
            title,
            [_drop_row(variant, quality) for variant, quality in judged],
            axis,
            f"drop, {'points' if judged[0][1].higher_is_better else '% of the baseline'} (right is worse)",
            Reference(0.0, "baseline"),
        )
        yield Figure(title, _DROP_CAPTION.format(examples=_examples(q for _, q in judged)), svg)


def rate(result: LoadTest) -> str:
    """Requests a second, as offered."""
    return f"{result.generator.offered_rps:.4g}/s"


def _latency_row(variant: Variant, record: Latency | None) -> Row:
    if record is None:
        return Row(variant.name, words.MISSING, variant.hue, None)
    speedup = f"{words.times(record.speedup)} {words.times_interval(record.speedup_interval)}"
    figures = f"{words.milliseconds(record.median_ms)}, {speedup}"
    return Row(variant.name, figures, variant.hue, _bar(record) if _is_drawable(record) else None)


def _bar(record: Latency) -> Draw:
    def draw(axis: Axis, y: float) -> Sequence[Markup]:
        start, end = axis.at(0), axis.at(record.median_ms)
        own = axis.at(record.baseline_median_ms)
        fast, slow = _speedup_as_times(record)
        return (
            element("rect", x=start, y=y - BAR / 2, width=end - start, height=BAR, rx=2, class_="bar"),
            line(own, y - 8, own, y + 8, "own-baseline"),
            whisker(axis, fast, slow, y),
        )

    return draw


def _speedup_as_times(record: Latency) -> tuple[float, float]:
    """The interval of the speed-up in milliseconds: of the variant, were the baseline's median exact."""
    bounds = record.speedup_interval
    fast, slow = (
        record.baseline_median_ms / speedup if speedup > 0 else record.median_ms
        for speedup in (bounds.high, bounds.low)
    )
    return fast, slow


def _is_drawable(record: Latency) -> bool:
    return all(map(math.isfinite, _times(record)))


def _times(record: Latency) -> list[float]:
    return [record.median_ms, record.baseline_median_ms, *_speedup_as_times(record)]


def _median_baseline(records: Sequence[Latency]) -> Reference:
    """Every variant was timed against its own run of the baseline: the line is the middle one of them."""
    times = sorted(record.baseline_median_ms for record in records)
    return Reference(times[len(times) // 2], "baseline")


def _distribution(variant: Variant, measure: Measure) -> Distribution | None:
    if not isinstance(variant.served, LoadTest):
        return None
    summary = variant.served.summary
    return summary.latency_ms if measure == "latency" else summary.ttft_ms


def _ends(distribution: Distribution) -> list[float]:
    return [found for name in ("p50", "p99") if (found := distribution.at(name)) is not None]


def _served_row(variant: Variant, distribution: Distribution | None) -> Row:
    result = variant.served
    if isinstance(result, Unreadable):
        return Row(variant.name, "result cannot be read", variant.hue, None)
    if result is None or distribution is None:
        return Row(variant.name, words.MISSING, variant.hue, None)
    figures = [percentile(distribution, name, f"{name} ") for name in ("p50", "p99")]
    invalid = "INVALID " if result.outcome == "invalid" else ""
    return Row(
        variant.name,
        f"{invalid}{', '.join(figures)} ms at {rate(result)}",
        variant.hue,
        _dumbbell(distribution) if _ends(distribution) else None,
    )


def percentile(distribution: Distribution | None, name: str, prefix: str = "") -> str:
    """The figure, or that there were too few samples for it."""
    if distribution is None:
        return words.MISSING
    found = distribution.at(name)
    return f"{prefix}{'n/a' if found is None else words.number(found)}"


def _dumbbell(distribution: Distribution) -> Draw:
    def draw(axis: Axis, y: float) -> Sequence[Markup]:
        values = {name: distribution.at(name) for name in ("p50", "p99")}
        found = [(name, axis.at(value)) for name, value in values.items() if value is not None]
        ends = [x for _, x in found]
        return (
            line(ends[0], y, ends[-1], y, "span"),
            *(dot(x, y, "point" if name == "p50" else "ring") for name, x in found),
        )

    return draw


def _served_notes(group: Group) -> Iterator[str]:
    for variant in group.variants:
        if isinstance(variant.served, Unreadable):
            yield f"{variant.name}: {variant.served.reason}."
        elif variant.served:
            yield from (
                f"{variant.name}: no valid measurement: {reason}." for reason in variant.served.invalid
            )


def _drop_row(variant: Variant, quality: Quality) -> Row:
    figures = f"{words.drop(quality)} {words.drop_interval(quality)}"
    drawable = all(map(math.isfinite, _drops(quality)))
    return Row(variant.name, figures, variant.hue, _estimate(quality) if drawable else None)


def _estimate(quality: Quality) -> Draw:
    value, low, high = _drops(quality)

    def draw(axis: Axis, y: float) -> Sequence[Markup]:
        return whisker(axis, low, high, y), dot(axis.at(value), y, "point")

    return draw


def _drops(quality: Quality) -> tuple[float, float, float]:
    """The drop and its interval in hundredths: points, or percent."""
    bounds = quality.drop_interval
    return 100 * quality.drop, 100 * bounds.low, 100 * bounds.high


def _examples(judged: Iterator[Quality]) -> str:
    return " or ".join(f"{count:,}" for count in dict.fromkeys(quality.examples for quality in judged))


_LATENCY_CAPTION = (
    "Median of interleaved runs beside the baseline in the same process. The short line at each bar is the "
    "baseline's median in that run, the long one the middle of those; the whisker is the speed-up's 95% "
    "interval in milliseconds. Where it crosses the short line, faster cannot be told from slower."
)
_SERVED_CAPTION = (
    "Filled: p50. Ring: p99. At the rate that is written beside them, requests sent on schedule whether "
    "answers came or not. n/a: too few samples to bound that percentile at 99% confidence."
)
_DROP_CAPTION = "Paired over the same {examples} held-out examples; whiskers are 95% bootstrap intervals."
