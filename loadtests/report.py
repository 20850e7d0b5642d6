"""The result as a person reads it on a terminal: the verdict, one table, and what it does not show.

A percentile marked `*` had too few samples for an upper bound at 99 % confidence. The figure is still what
was measured; it is no claim about the server.
"""

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loadtests.result import Result
from loadtests.statistics import PERCENTILES, Distribution, label, samples_needed
from loadtests.summary import Summary
from loadtests.verdict import Judgement

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
        for request, summary in zip(result.scenario.mix, result.by_request, strict=True):
            grid.add_section()
            _add_rows(grid, summary, f"{request.target}: ")
    return grid


def figures(result: Result) -> Iterator[str]:
    """What does not fit into the table, a line each."""
    summary, counts, generator = result.summary, result.counts, result.generator
    tokens = f", {summary.tokens_per_s:.1f} tokens/s" if summary.tokens_per_s is not None else ""
    yield f"throughput {summary.throughput_rps:.1f}/s, goodput {summary.goodput_rps:.1f}/s{tokens}"
    yield (
        f"requests {counts.measured} measured, {summary.failed} failed, {counts.unfinished} unfinished; "
        f"{counts.sent} of {counts.planned} sent with warm-up"
    )
    for kind, errors in summary.errors.items():
        yield f"error {kind} x {errors.count}, the first: {errors.first}"
    yield (
        f"generator {generator.achieved_rps:.1f}/s of {generator.offered_rps:.1f}/s, "
        f"{generator.late} sent late, {generator.cpu_share:.0%} of a core"
    )
    for judgement in result.objectives:
        yield f"objective {describe(judgement)}"
    if needs := [f"{label(percent)} needs {samples_needed(percent)}" for percent in scarce(result)]:
        yield f"* too few samples for a bound: {', '.join(needs)}"


def scarce(result: Result) -> list[float]:
    """The percentiles that carry a `*` somewhere in the table."""
    shown = [row for summary in (result.summary, *result.by_request) for row in measures(summary).values()]
    return [
        percent
        for percent in PERCENTILES
        if any(not distribution.percentiles[label(percent)].enough_samples for distribution in shown)
    ]


def describe(judgement: Judgement) -> str:
    """`p99_ms 43.1 of at most 50: met, not proven`"""
    value = "unmeasured" if judgement.value is None else f"{judgement.value:g}"
    verdict = "MISSED" if not judgement.met else "met" if judgement.proven else "met, not proven"
    return f"{judgement.objective} {value} of at most {judgement.limit:g}: {verdict}"


def measures(summary: Summary) -> dict[str, Distribution]:
    """What there are samples of, by the name of its row."""
    rows = {
        "latency": summary.latency_ms,
        "service time": summary.service_ms,
        "send lag": summary.lag_ms,
        "TTFT": summary.ttft_ms,
        "TPOT": summary.tpot_ms,
        "ITL": summary.itl_ms,
    }
    return {name: distribution for name, distribution in rows.items() if distribution is not None}


def _add_rows(grid: Table, summary: Summary, prefix: str) -> None:
    for name, distribution in measures(summary).items():
        grid.add_row(Text(prefix + name), *_cells(distribution))


def _cells(distribution: Distribution) -> Iterator[str]:
    for percentile in distribution.percentiles.values():
        yield _figure(percentile.value) + ("" if percentile.enough_samples else "*")
    yield _figure(distribution.max)
    yield f"{distribution.samples}"


def _figure(value: float) -> str:
    """At least three digits, and as narrow as that allows."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
