"""Results as a person reads them on a terminal: the verdict, one table, and what it does not show.

A percentile with too few samples for an upper bound at 99 % confidence is "n/a": the figure would be one
run's luck, and no claim about the server. Pages show the same texts.
"""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadtests.compare import Comparison
from loadtests.point import Point, Series
from loadtests.result import Result
from loadtests.schedule import MultiStream, Offline, PoissonArrivals, SingleStream
from loadtests.statistics import PERCENTILES, Distribution, label, samples_needed
from loadtests.summary import Summary
from loadtests.verdict import Judgement

# A warm-up that goes on for this part of the measured time has gone into the figures.
LONG_WARM_UP = 0.1

STYLES = {"pass": "bold green", "fail": "bold red", "invalid": "bold yellow"}


def render(result: Result) -> RenderableType:
    """Everything in the order of importance."""
    heading = Text.assemble((result.outcome.upper(), STYLES[result.outcome]), f"  {result.url}")
    lines: list[RenderableType] = [
        heading,
        *map(Text, result.invalid),
        table(result),
        *map(Text, figures(result)),
    ]
    return Group(*lines)


def table(result: Result) -> Table:
    """A row for each measure; with several kinds of request, rows for each kind below."""
    grid = Table("ms", *map(label, PERCENTILES), "max", "n", box=box.SIMPLE_HEAD)
    for column in grid.columns[1:]:
        column.justify = "right"
    _add_rows(grid, result.summary, "")
    if len(result.by_request) > 1:
        for name, summary in zip(names(result), result.by_request, strict=True):
            grid.add_section()
            _add_rows(grid, summary, f"{name}: ")
    return grid


def names(result: Result) -> list[str]:
    """What each entry of the mix asks for, with the dialect where that alone would not tell them apart."""
    targets = [request.target for request in result.scenario.mix]
    if len(set(targets)) == len(targets):
        return targets
    return [f"{request.dialect} {request.target}" for request in result.scenario.mix]


def figures(result: Result) -> Iterator[str]:
    """What does not fit into the table, a line each."""
    summary, counts, generator = result.summary, result.counts, result.generator
    rows = f", {summary.rows_per_s:.1f} rows/s" if summary.rows_per_s != summary.throughput_rps else ""
    tokens = f", {summary.tokens_per_s:.1f} tokens/s" if summary.tokens_per_s is not None else ""
    yield f"throughput {summary.throughput_rps:.1f}/s, goodput {summary.goodput_rps:.1f}/s{rows}{tokens}"
    if line := mlperf(result):
        yield line
    yield (
        f"requests {counts.measured} measured, {summary.failed} failed, {counts.unfinished} unfinished; "
        f"{counts.sent} of {counts.planned} sent with warm-up"
    )
    if summary.cancelled or summary.slow:
        yield f"not in the figures: {summary.cancelled} that left, {summary.slow} that read slowly"
    for kind, errors in summary.errors.items():
        yield f"error {kind} x {errors.count}, the first: {errors.first}"
    yield (
        f"generator {generator.achieved_rps:.1f}/s of {generator.offered_rps:.1f}/s, "
        f"{generator.late} sent late, {generator.cpu_share:.0%} of a core"
    )
    if result.generator.count > 1:
        yield f"{result.generator.count} generators shared the plan; the share of a core is the busiest's"
    yield from steadiness(result)
    yield from server(result)
    for judgement in result.objectives:
        yield f"objective {describe(judgement)}"
    if needs := [f"{label(percent)} needs {samples_needed(percent)}" for percent in scarce(result)]:
        yield f"n/a: too few samples; {', '.join(needs)}"


def mlperf(result: Result) -> str | None:
    """The one figure of the MLPerf scenario, where it is one. Not a result that MLCommons has verified."""
    summary = result.summary
    match result.scenario.arrivals:
        case SingleStream() if summary.latency_ms:
            return f"SingleStream: p90 latency {figure(summary.latency_ms, 'p90')} ms"
        case MultiStream() if summary.query_ms:
            return f"MultiStream: p99 latency of a query {figure(summary.query_ms, 'p99')} ms"
        case Offline():
            return f"Offline: {summary.rows_per_s:.1f} samples/s"
        case PoissonArrivals(kind="server"):
            return f"Server: {result.generator.offered_rps:.1f} queries/s; `search` finds the highest"
    return None


def steadiness(result: Result) -> Iterator[str]:
    """Only what the reader should know: a warm-up that was too short, or no end of it."""
    if result.steady is None:
        return
    if result.steady.from_ms is None:
        yield "latencies did not settle: they are those of this run's length, and of no other"
        return
    late = LONG_WARM_UP * (result.window.end - result.window.start)
    if result.steady.from_ms > result.window.start + late:
        yield f"latencies settled only {result.steady.from_ms / 1e3:.1f} s after the start: warm up longer"


def server(result: Result) -> Iterator[str]:
    """What the server counted and took."""
    for found in result.server.reconciled:
        verb = "agrees" if found.agree else "DISAGREES: others use the server, or it loses count"
        yield f"server counted {found.server} {found.what}, the clients {found.clients}: {verb}"
    if result.server.cpu_cores is not None and result.server.memory_bytes is not None:
        yield (
            f"server processes {result.server.processes}, {result.server.cpu_cores:.2f} cores, "
            f"{result.server.memory_bytes / 2**20:.0f} MiB"
        )


def scarce(result: Result) -> list[float]:
    """The percentiles that are "n/a" somewhere in the table."""
    shown = [row for summary in (result.summary, *result.by_request) for row in measures(summary).values()]
    return [
        percent
        for percent in PERCENTILES
        if any(distribution.percentiles[label(percent)].value is None for distribution in shown)
    ]


def describe(judgement: Judgement) -> str:
    """`p99_ms 43.1 of at most 50: met, not proven`"""
    verdict = "MISSED" if not judgement.met else "met" if judgement.proven else "met, not proven"
    return f"{judgement.objective} {measured(judgement)} of at most {judgement.limit:g}: {verdict}"


def measured(judgement: Judgement) -> str:
    """The figure; without one, what there is instead."""
    if judgement.value is not None:
        return f"{judgement.value:g}"
    if not judgement.samples:
        return "unmeasured"
    return f"n/a ({judgement.beyond} of {judgement.samples} samples beyond)"


def measures(summary: Summary) -> dict[str, Distribution]:
    """What there are samples of, by the name of its row."""
    rows = {
        "latency": summary.latency_ms,
        "service time": summary.service_ms,
        "send lag": summary.lag_ms,
        "TTFT": summary.ttft_ms,
        "TPOT": summary.tpot_ms,
        "ITL": summary.itl_ms,
        "query": summary.query_ms,
    }
    return {name: distribution for name, distribution in rows.items() if distribution is not None}


def _add_rows(grid: Table, summary: Summary, prefix: str) -> None:
    for name, distribution in measures(summary).items():
        grid.add_row(Text(prefix + name), *cells(distribution))


def cells(distribution: Distribution) -> Iterator[str]:
    for name in distribution.percentiles:
        yield figure(distribution, name)
    yield _figure(distribution.max)
    yield f"{distribution.samples}"


def figure(distribution: Distribution, name: str) -> str:
    """A percentile, or "n/a" where there were too few samples for it."""
    value = distribution.percentiles[name].value
    return "n/a" if value is None else _figure(value)


def _figure(value: float) -> str:
    """At least three digits, and as narrow as that allows."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def one_line(result: Result) -> str:
    """A run among several, while they go on."""
    summary, generator = result.summary, result.generator
    latency = summary.latency_ms
    figures = f"p50 {figure(latency, 'p50')}  p99 {figure(latency, 'p99')} ms" if latency else "no answer"
    return (
        f"{generator.offered_rps:8.1f}/s sent  {summary.throughput_rps:8.1f}/s answered  {figures}  "
        f"{summary.failed} failed  {result.outcome}"
    )


def render_series(series: Series) -> RenderableType:
    """A row for each load, the knee marked."""
    headings = point_headings(series)
    grid = Table(*headings, "", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in grid.columns[:-1]:
        column.justify, column.no_wrap = "right", True
    for place, found in enumerate(series.points):
        grid.add_row(*point_cells(found, headings), "knee" if place == series.knee else "")
    lines: list[RenderableType] = [Text(f"{series.kind}  {series.url}", "bold"), grid]
    if series.kind == "search":
        lines.append(Text(found_rates(series)))
    if series.note:
        lines.append(Text(series.note, "yellow"))
    return Group(*lines)


def found_rates(series: Series) -> str:
    """`highest rate that meets the objectives 41/s, lowest that does not 43/s`"""
    highest = "none" if series.highest_pass is None else f"{series.highest_pass:.4g}/s"
    lowest = "none was tried" if series.lowest_fail is None else f"{series.lowest_fail:.4g}/s"
    return f"highest rate that meets the objectives {highest}, lowest that does not {lowest}"


def render_comparison(comparison: Comparison) -> RenderableType:
    """A row for each ratio with its interval."""
    grid = Table("second / first", "first", "second", "ratio", "interval", "", box=box.SIMPLE_HEAD)
    for column in grid.columns[1:5]:
        column.justify = "right"
    for found in comparison.ratios:
        cells = (_figure(found.first), _figure(found.second), f"{found.ratio:.3f}")
        grid.add_row(found.measure, *cells, f"{found.low:.3f} to {found.high:.3f}", found.verdict)
    return Group(
        Text(comparison.verdict.upper(), "bold"),
        Text(f"first   {comparison.first.name}"),
        Text(f"second  {comparison.second.name}"),
        grid,
        Text(f"{len(comparison.first.runs)} pairs; the intervals hold together at 95 % confidence"),
    )


def point_headings(series: Series) -> list[str]:
    """The columns that there is something to put into."""
    load = "rate/s" if series.unit == "requests/s" else "users"
    tokens = ["tokens/s"] if any(found.summary.tokens_per_s for found in series.points) else []
    verdict = ["verdict", "runs"] if series.kind == "search" else []
    return [load, "sent/s", "answered/s", *tokens, "p50 ms", "p90 ms", "p99 ms", "failed", *verdict]


def point_cells(found: Point, headings: Sequence[str]) -> list[str]:
    """One load's figures under these headings."""
    summary = found.summary
    latency = summary.latency_ms
    cells = {
        "sent/s": f"{found.offered_rps:.1f}",
        "answered/s": f"{summary.throughput_rps:.1f}",
        "tokens/s": "" if summary.tokens_per_s is None else f"{summary.tokens_per_s:.0f}",
        "failed": f"{summary.failed}",
        "verdict": found.verdict or "",
        "runs": f"{found.runs}",
    }
    if latency:
        cells |= {f"{name} ms": figure(latency, name) for name in latency.percentiles}
    return [f"{found.load:.4g}", *(cells.get(heading, "") for heading in headings[1:])]
