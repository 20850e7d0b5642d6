"""The figures under the plots, and how to make them again. Pure: rows of text, which the page escapes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import yaml

from compress.reporting import words
from compress.reporting.group import Group, Variant, compressing
from compress.reporting.plots import percentile
from compress.reporting.served import LoadTest, Unreadable
from runtime.manifest import Latency, Manifest, Quality


@dataclass(frozen=True, slots=True)
class Table:
    """A heading for each column, and the rows; the first column names them."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(group: Group) -> list[Table]:
    """Size and quality, latency in process, latency served."""
    return [_quality_table(group), _latency_table(group), _served_table(group)]


def machines(group: Group) -> list[tuple[str, str]]:
    """Each machine that evidence comes from, and the bundles that were measured on it."""
    return _shared(group, lambda m: _pairs(m.evidence.machine) if m.evidence else "")


def versions(group: Group) -> list[tuple[str, str]]:
    """The library versions, and the bundles that were made with them."""
    return _shared(group, lambda m: _pairs(m.provenance.versions))


def lineage(manifest: Manifest) -> list[tuple[str, str, str]]:
    """Each step: method, settings, and what it measured, but for what has a table of its own."""
    return [
        (step.method, _pairs(_without(step.config, "method")), _pairs(_without(step.figures, "sensitivity")))
        for step in manifest.lineage.steps
    ]


def recipe(manifest: Manifest) -> str:
    """A recipe that makes the bundle again, as far as its manifest knows it."""
    content = {
        "model": manifest.lineage.source,
        "name": manifest.name,
        "variant": manifest.variant,
        "seed": manifest.provenance.seed,
        "steps": [step.config or {"method": step.method} for step in compressing(manifest)],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _quality_table(group: Group) -> Table:
    headings = (
        "variant",
        "size",
        "smaller by",
        "metric",
        "value",
        "95% interval",
        "baseline",
        "drop (+ is worse)",
        "95% interval of the drop",
        "examples",
    )
    rows = [row for variant in group.variants for row in _quality_rows(variant)]
    return Table("Size and quality", headings, rows)


def _quality_rows(variant: Variant) -> list[tuple[str, ...]]:
    """By the metric that decides, then by the others that its answers were judged by."""
    evidence, quality = variant.evidence, variant.quality
    if evidence is None:
        return [(variant.name, words.MISSING)]
    size = (variant.name, words.megabytes(evidence.size_bytes), words.times(words.smaller_by(evidence)))
    if quality is None:
        return [(*size, words.MISSING)]
    return [(*size, *_quality_cells(each)) for each in (quality, *evidence.also)]


def _quality_cells(quality: Quality) -> tuple[str, ...]:
    bounds = quality.interval
    return (
        quality.metric,
        words.number(quality.value, 4),
        f"[{words.number(bounds.low, 4)}, {words.number(bounds.high, 4)}]",
        words.number(quality.baseline, 4),
        words.drop(quality),
        words.drop_interval(quality),
        f"{quality.examples:,}",
    )


def _latency_table(group: Group) -> Table:
    headings = (
        "variant",
        "workload",
        "median ms",
        "p90 ms",
        "baseline median ms",
        "speed-up",
        "95% interval",
        "runs",
    )
    rows = [
        _latency_row(variant.name, record)
        for workload in group.workloads
        for variant in group.variants
        if (record := variant.latency(workload))
    ]
    untimed = [v for v in group.variants if not (v.evidence and v.evidence.latency)]
    return Table("Latency in process", headings, [*rows, *((v.name, words.MISSING) for v in untimed)])


def _latency_row(name: str, record: Latency) -> tuple[str, ...]:
    return (
        name,
        record.workload,
        words.number(record.median_ms),
        words.number(record.p90_ms),
        words.number(record.baseline_median_ms),
        words.times(record.speedup),
        words.times_interval(record.speedup_interval),
        str(record.runs),
    )


def _served_table(group: Group) -> Table:
    headings = (
        "variant",
        "outcome",
        "offered/s",
        "answered/s",
        "failed",
        "p50 ms",
        "p99 ms",
        "p99 at most (99% confidence)",
        "first token p50 ms",
        "first token p99 ms",
        "tokens/s",
    )
    return Table("Served, under load", headings, [_served_row(variant) for variant in group.variants])


def _served_row(variant: Variant) -> tuple[str, ...]:
    result = variant.served
    if result is None:
        return (variant.name, words.MISSING)
    if isinstance(result, Unreadable):
        return (variant.name, result.reason)
    summary = result.summary
    tokens = summary.tokens_per_s
    return (
        variant.name,
        result.outcome,
        f"{result.generator.offered_rps:.4g}",
        f"{summary.throughput_rps:.4g}",
        f"{summary.failed} of {summary.requests}",
        percentile(summary.latency_ms, "p50"),
        percentile(summary.latency_ms, "p99"),
        _bound(result),
        *(percentile(summary.ttft_ms, name) if summary.ttft_ms else "-" for name in ("p50", "p99")),
        "-" if tokens is None else words.number(tokens),
    )


def _bound(result: LoadTest) -> str:
    p99 = result.summary.latency_ms.percentiles.get("p99") if result.summary.latency_ms else None
    return "too few samples" if p99 is None or p99.upper_bound is None else words.number(p99.upper_bound)


def _shared(group: Group, describe: Callable[[Manifest], str]) -> list[tuple[str, str]]:
    """Each distinct description with the variants that share it; an empty one says that it is missing."""
    found: dict[str, list[str]] = {}
    for variant in group.variants:
        found.setdefault(describe(variant.manifest) or "not recorded", []).append(variant.name)
    return [(text, ", ".join(names)) for text, names in found.items()]


def _without(values: Mapping[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in values.items() if name != key}


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {_plain(value)}" for key, value in values.items())


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
