"""The page around everything: template, style and what they are filled with.

The template escapes all that it is given, except for the drawings, which escaped their own texts. A content
security policy refuses whatever a browser would load from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loadtests import terminal
from loadtests.compare import Comparison
from loadtests.html import plots, plots_of_several
from loadtests.html.figure import Figure
from loadtests.point import Series
from loadtests.result import Machine, Result
from loadtests.scenario import Scenario
from loadtests.statistics import PERCENTILES, label
from loadtests.summary import Summary

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure in large type, and what it is about."""

    value: str
    about: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts; the first cell of each names it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template shows, in its order."""

    title: str
    outcome: str
    subject: str
    scenario: Scenario
    machine: Machine
    versions: dict[str, str]
    warnings: Sequence[str] = ()
    tiles: Sequence[Tile] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = field(default_factory=list)


def of_run(result: Result) -> str:
    """The page of one run."""
    return render(
        Page(
            title="Load test",
            outcome=result.outcome,
            subject=f"{result.url}, {result.course.started_at:%Y-%m-%d %H:%M} UTC",
            warnings=result.invalid,
            tiles=_tiles(result),
            figures=list(plots.figures(result)),
            tables=_tables(result),
            notes=list(terminal.figures(result)),
            scenario=result.scenario,
            machine=result.machine,
            versions=result.versions,
        )
    )


def of_series(series: Series) -> str:
    """The page of a sweep or a search."""
    figure = plots_of_several.throughput_against_latency(series)
    return render(
        Page(
            title=f"Load test: {series.kind}",
            outcome="" if series.kind == "sweep" else "pass" if series.highest_pass else "fail",
            subject=series.url,
            warnings=[series.note] if series.note else [],
            tiles=_series_tiles(series),
            figures=[figure] if figure else [],
            tables=[_points(series)],
            notes=[terminal.found_rates(series)] if series.kind == "search" else [],
            scenario=series.scenario,
            machine=series.machine,
            versions=series.versions,
        )
    )


def of_comparison(comparison: Comparison) -> str:
    """The page of a comparison."""
    rows = [
        (
            r.measure,
            f"{r.first:.4g}",
            f"{r.second:.4g}",
            f"{r.ratio:.3f}",
            f"{r.low:.3f} to {r.high:.3f}",
            r.verdict,
        )
        for r in comparison.ratios
    ]
    headings = ("second / first", "first", "second", "ratio", "interval", "verdict")
    return render(
        Page(
            title="Load test: comparison",
            outcome=comparison.verdict,
            subject=f"{comparison.second.name} against {comparison.first.name}",
            warnings=comparison.invalid,
            figures=[plots_of_several.intervals(comparison)],
            tables=[Table(f"{len(comparison.first.runs)} interleaved pairs, milliseconds", headings, rows)],
            notes=["All intervals hold together at 95 % confidence: bootstrap-t over the pairs."],
            scenario=comparison.scenario,
            machine=comparison.machine,
            versions=comparison.versions,
        )
    )


def render(page: Page) -> str:
    """The whole HTML document."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    document = page.scenario.model_dump(mode="json", exclude_defaults=True)
    recipe = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return environment.get_template("page.html").render(page=page, style=style, recipe=recipe)


def _tiles(result: Result) -> list[Tile]:
    summary = result.summary
    tiles = [
        Tile(
            f"{summary.throughput_rps:.1f}/s", f"answered well, of {result.generator.offered_rps:.1f}/s sent"
        )
    ]
    if summary.latency_ms:
        p50, p99 = (terminal.figure(summary.latency_ms, name) for name in ("p50", "p99"))
        tiles.append(Tile(f"{p50} / {p99} ms", "latency p50 / p99"))
    if summary.ttft_ms:
        tiles.append(Tile(f"{terminal.figure(summary.ttft_ms, 'p50')} ms", "time to first token, p50"))
    if summary.tokens_per_s is not None:
        tiles.append(Tile(f"{summary.tokens_per_s:.0f}/s", "tokens generated"))
    tiles.append(Tile(f"{summary.goodput_rps:.1f}/s", "goodput: answers within every objective"))
    tiles.append(Tile(f"{summary.failed}", f"failed of {summary.requests:,} measured requests"))
    return tiles


def _tables(result: Result) -> list[Table]:
    headings = ("ms", *map(label, PERCENTILES), "max", "samples")
    tables = [Table("Percentiles", headings, _percentiles(result.summary))]
    if len(result.by_request) > 1:
        for entry, summary in zip(result.scenario.mix, result.by_request, strict=True):
            tables.append(Table(f"{entry.dialect} {entry.target}", headings, _percentiles(summary)))
    if result.objectives:
        rows = [
            (
                found.objective,
                f"{found.limit:g}",
                terminal.measured(found),
                "missed" if not found.met else "met" if found.proven else "met, not proven",
            )
            for found in result.objectives
        ]
        tables.append(Table("Objectives", ("objective", "at most", "measured", "verdict"), rows))
    return tables


def _percentiles(summary: Summary) -> list[Sequence[str]]:
    return [
        (name, *terminal.cells(distribution)) for name, distribution in terminal.measures(summary).items()
    ]


def _series_tiles(series: Series) -> list[Tile]:
    tiles = []
    if series.kind == "search":
        passed = "none" if series.highest_pass is None else f"{series.highest_pass:.4g}/s"
        failed = "none tried" if series.lowest_fail is None else f"{series.lowest_fail:.4g}/s"
        tiles += [
            Tile(passed, "highest rate that meets the objectives"),
            Tile(failed, "lowest rate that does not"),
        ]
    if series.knee is not None:
        tiles.append(Tile(f"{series.points[series.knee].load:.4g} {series.unit}", "knee of the curve"))
    best = max((point.summary.throughput_rps for point in series.points), default=0.0)
    tiles.append(Tile(f"{best:.1f}/s", "most that was answered"))
    return tiles


def _points(series: Series) -> Table:
    headings = terminal.point_headings(series)
    rows = [terminal.point_cells(found, headings) for found in series.points]
    return Table("Every load", headings, rows)
