"""The drawings of one run, from its raw samples. Each is there only if there is something to draw."""

from collections.abc import Iterator

import numpy as np
from markupsafe import Markup

from loadtests.html import svg
from loadtests.html.figure import Figure
from loadtests.html.svg import Frame
from loadtests.result import Result
from loadtests.samples import Floats, Samples
from loadtests.server import Moment
from loadtests.statistics import label, percentile, samples_needed
from loadtests.summary import present

# Time is cut into so many pieces at the most.
BINS = 60

# A line over time of fewer pieces shows no course.
FEWEST_PIECES = 4

# More dots than this make a page slow and say no more. The slowest are always among them.
MOST_DOTS = 3000

# Rows of the heat map, on a logarithmic scale of gaps.
HEAT_ROWS = 24

HUES = 6


def figures(result: Result) -> Iterator[Figure]:
    """In the order of the page."""
    samples = result.samples.samples()
    if not len(samples):
        return
    good = samples.take(samples.good)
    if len(good):
        yield latency_over_time(good, result)
        yield cumulative(good, result)
    yield rates(samples, result)
    if len(good.gaps_ms):
        yield heat_map(good, result)
    if (samples.error >= 0).any():
        yield errors(samples, result)
    if result.server.cpu:
        yield moments(
            "Server CPU", {"processes": result.server.cpu}, "cores", "What the server's processes used."
        )
    if result.server.gauges:
        yield moments(
            "What the server said",
            result.server.gauges,
            "value",
            "Its own gauges, scraped while it was under load.",
        )


def latency_over_time(good: Samples, result: Result) -> Figure:
    """Every request as a dot where it was planned, and percentiles of each piece of time."""
    seconds, latency = good.planned_ms / 1e3, np.maximum(good.latency_ms, 1e-3)
    end = _end(result, seconds)
    frame = Frame(
        svg.across(0, end), _latency_axis(float(latency.min()), float(latency.max())), "seconds", "ms"
    )
    chosen, shown = _thin(latency), (50.0, _furthest_tail(len(latency)))
    points = [(frame.x.at(x), frame.y.at(y)) for x, y in zip(seconds[chosen], latency[chosen], strict=True)]
    lines = [
        svg.path([(frame.x.at(x), frame.y.at(y)) for x, y in pieces], f"line hue{number}")
        for number, percent in enumerate(shown)
        if len(pieces := _percentiles(seconds, latency, end, percent)) > 1
    ]
    drawn = svg.drawing(
        "Latency over time", *frame.draw(), *_warm_up(frame, result), svg.dots(points, "soft"), *lines
    )
    caption = "Each dot is a request, where it was planned. The shaded part is not measured."
    key = [(f"hue{number}", label(percent)) for number, percent in enumerate(shown)]
    return Figure("Latency over time", drawn, caption, key)


def cumulative(good: Samples, result: Result) -> Figure:
    """Which share of the measured requests took at most how long, by each measure."""
    measured = good.take(result.window.holds(good.planned_ms))
    measures = {
        "latency": measured.latency_ms,
        "service time": measured.service_ms,
        "TTFT": present(measured.ttft_ms),
    }
    measures = {name: np.sort(np.maximum(values, 1e-3)) for name, values in measures.items() if len(values)}
    if not measures:
        return Figure("Distribution", svg.drawing("No sample"), "Nothing was measured.")
    low, high = (pick(values[at] for values in measures.values()) for pick, at in ((min, 0), (max, -1)))
    frame = Frame(svg.across(float(low), float(high), log=True), svg.upward(0, 100), "ms", "% of requests")
    lines = [
        svg.steps([(frame.x.at(x), frame.y.at(y)) for x, y in _distribution(values)], f"line hue{number}")
        for number, values in enumerate(measures.values())
    ]
    key = [(f"hue{number}", name) for number, name in enumerate(measures)]
    caption = "Service time is from the real send; where it leaves the latency, requests waited to be sent."
    return Figure("Distribution", svg.drawing("Cumulative distribution", *frame.draw(), *lines), caption, key)


def rates(samples: Samples, result: Result) -> Figure:
    """What was sent and what came back, in each piece of time."""
    sent = (samples.planned_ms + samples.lag_ms) / 1e3
    ended = samples.ended_ms[samples.answered] / 1e3
    end = max(_end(result, sent), float(ended.max(initial=0.0)))
    edges = np.linspace(0, end, BINS + 1)
    counts = [np.histogram(moments, edges)[0] / np.diff(edges) for moments in (sent, ended)]
    frame = Frame(
        svg.across(0, end),
        svg.upward(0, float(max(count.max() for count in counts)) * 1.05),
        "seconds",
        "per second",
    )
    lines = [
        svg.steps([(frame.x.at(x), frame.y.at(y)) for x, y in zip(edges, count, strict=False)], f"line {hue}")
        for hue, count in zip(("hue0", "hue2"), counts, strict=True)
    ]
    caption = "Where answers stay below what is sent, work piles up in the server."
    drawn = svg.drawing("Rates over time", *frame.draw(), *_warm_up(frame, result), *lines)
    return Figure("Sent and answered", drawn, caption, (("hue0", "sent"), ("hue2", "answered well")))


def heat_map(good: Samples, result: Result) -> Figure:
    """How many gaps of which length there were, and when: a stall of all streams is a vertical band."""
    # Two tokens in one packet have no gap to speak of, and would stretch the axis down to nothing.
    gaps = np.maximum(good.gaps_ms, max(float(np.percentile(good.gaps_ms, 0.5)), 1e-2))
    seconds = np.repeat((good.planned_ms + np.nan_to_num(good.ttft_ms)) / 1e3, good.gap_counts)
    seconds = seconds + _elapsed(good) / 1e3
    end = max(_end(result, seconds), float(seconds.max()))
    frame = Frame(
        svg.across(0, end), svg.upward(float(gaps.min()), float(gaps.max()), log=True), "seconds", "gap, ms"
    )
    rows = np.exp(np.linspace(np.log(frame.y.low), np.log(frame.y.high), HEAT_ROWS + 1))
    columns = np.linspace(0, end, BINS + 1)
    counts = np.histogram2d(seconds, gaps, (columns, rows))[0]
    # The square root, as in histograms of photon counts: a single stall beside a thousand gaps is to be seen.
    shade = np.sqrt(counts / max(counts.max(), 1))
    width = (frame.x.end - frame.x.start) / BINS
    cells = [
        svg.rectangle(
            frame.x.at(float(columns[x])),
            frame.y.at(float(rows[y + 1])),
            width,
            frame.y.at(float(rows[y])) - frame.y.at(float(rows[y + 1])),
            "heat",
            max(float(shade[x, y]), 0.08),
        )
        for x, y in zip(*np.nonzero(counts), strict=True)
    ]
    caption = f"{len(gaps):,} gaps between tokens; the stronger the colour, the more of that length."
    return Figure("Gaps between tokens", svg.drawing("Heat map of gaps", *frame.draw(), *cells), caption)


def errors(samples: Samples, result: Result) -> Figure:
    """Failed requests by kind, stacked, where they were planned."""
    seconds = samples.planned_ms / 1e3
    end = _end(result, seconds)
    edges = np.linspace(0, end, BINS + 1)
    kinds = [kind for kind in range(len(samples.kinds)) if (samples.error == kind).any()]
    counts = [np.histogram(seconds[samples.error == kind], edges)[0] for kind in kinds]
    total = np.sum(counts, axis=0)
    frame = Frame(svg.across(0, end), svg.upward(0, float(total.max()) * 1.05), "seconds", "failed requests")
    bars = []
    below = np.zeros(BINS)
    for number, count in enumerate(counts):
        for at in np.flatnonzero(count):
            bottom, top = frame.y.at(float(below[at])), frame.y.at(float(below[at] + count[at]))
            left, right = frame.x.at(float(edges[at])), frame.x.at(float(edges[at + 1]))
            bars.append(svg.rectangle(left, top, right - left, bottom - top, f"bar hue{(number + 1) % HUES}"))
        below = below + count
    key = [(f"hue{(number + 1) % HUES}", samples.kinds[kind]) for number, kind in enumerate(kinds)]
    drawn = svg.drawing("Errors over time", *frame.draw(), *bars)
    return Figure("Errors", drawn, "Where the requests that failed were planned.", key)


def moments(title: str, series: dict[str, list[Moment]], unit: str, caption: str) -> Figure:
    """Figures that the server gave at some moments."""
    shown = list(series.items())[:HUES]
    times = [moment.at_ms / 1e3 for _, found in shown for moment in found]
    values = [moment.value for _, found in shown for moment in found]
    frame = Frame(
        svg.across(min(*times, 0.0), max(times)),
        svg.upward(min(*values, 0.0), max(values) * 1.05),
        "seconds",
        unit,
    )
    lines = [
        svg.path([(frame.x.at(m.at_ms / 1e3), frame.y.at(m.value)) for m in found], f"line hue{number}")
        for number, (_, found) in enumerate(shown)
    ]
    key = [(f"hue{number}", name) for number, (name, _) in enumerate(shown)]
    return Figure(title, svg.drawing(title, *frame.draw(), *lines), caption, key)


def _latency_axis(low: float, high: float) -> svg.Axis:
    return svg.upward(low, high, log=True) if svg.log_if_wide(low, high) else svg.upward(0, high * 1.05)


def _end(result: Result, seconds: Floats) -> float:
    return max(result.window.end / 1e3, float(seconds.max(initial=0.0)), 1e-3)


def _warm_up(frame: Frame, result: Result) -> Iterator[Markup]:
    """The shade over what is not measured."""
    start = result.window.start / 1e3
    if start > 0:
        left, right = frame.x.start, frame.x.at(start)
        yield svg.rectangle(left, frame.y.end, right - left, frame.y.start - frame.y.end, "aside")


def _thin(latency: Floats) -> list[int]:
    """Places of the dots to draw: evenly spread ones, and the slowest 1 %."""
    if len(latency) <= MOST_DOTS:
        return list(range(len(latency)))
    slowest = np.argsort(latency)[-max(len(latency) // 100, 1) :][-MOST_DOTS:]
    even = np.linspace(0, len(latency) - 1, MOST_DOTS).astype(int)
    return np.union1d(slowest, even).tolist()  # type: ignore[no-any-return]


def _percentiles(seconds: Floats, values: Floats, end: float, percent: float) -> list[tuple[float, float]]:
    """(middle of the piece, percentile) for every piece of time that has samples enough for it."""
    pieces = max(1, min(BINS, len(values) // (samples_needed(percent) * 2)))
    place = np.minimum((seconds / end * pieces).astype(int), pieces - 1)
    found = [percentile(np.sort(values[place == at]), percent).value for at in range(pieces)]
    return [((at + 0.5) * end / pieces, value) for at, value in enumerate(found) if value is not None]


def _furthest_tail(count: int) -> float:
    """The highest percentile that several pieces of time have the samples for."""
    enough = (percent for percent in (99.0, 95.0) if count >= FEWEST_PIECES * 2 * samples_needed(percent))
    return next(enough, 90.0)


def _distribution(ascending: Floats) -> list[tuple[float, float]]:
    """At most a few hundred steps of the empirical distribution; its upper end in full detail."""
    count = len(ascending)
    places = np.unique(
        np.concatenate(
            [np.linspace(0, count - 1, min(count, 300)), np.arange(max(0, count - 50), count)]
        ).astype(int)
    )
    return [(float(ascending[place]), 100 * (place + 1) / count) for place in places]


def _elapsed(good: Samples) -> Floats:
    """For each gap, the time from its stream's first token to its end, in milliseconds."""
    total = np.cumsum(good.gaps_ms)
    ends = np.cumsum(good.gap_counts)
    starts = ends - good.gap_counts
    before = np.concatenate([[0.0], total])[starts]
    elapsed: Floats = total - np.repeat(before, good.gap_counts)
    return elapsed
