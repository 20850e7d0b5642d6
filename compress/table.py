"""Bundles side by side in the terminal: one table a model, narrow enough for 80 columns."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runtime.manifest import Evidence, Latency, Manifest, Quality


def bundle_tables(manifests: Sequence[Manifest], served: Mapping[str, str] | None = None) -> Group:
    """Size, quality with the paired 95% interval of its drop, and in-process latency, one row a bundle.

    `served` adds a last column: what to show for each tag.
    """
    by_name: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        by_name.setdefault(manifest.name, []).append(manifest)
    return Group(*(part for group in by_name.values() for part in _model_table(group, served)))


def describe(manifest: Manifest) -> Group:
    """Everything a manifest says, for people."""
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column()
    for name, value in _facts(manifest):
        facts.add_row(name, value)
    parts: list[RenderableType] = [facts, bundle_tables([manifest])]
    if manifest.evidence and manifest.evidence.latency:
        parts.append(_latencies(manifest.evidence))
    return Group(*parts)


def cells(evidence: Evidence | None) -> list[str]:
    """Size, factor, quality, drop with interval, latency and speed-up of one bundle."""
    if evidence is None:
        return ["not measured", "", "", "", "", ""]
    latency = evidence.latency[0] if evidence.latency else None
    return [
        f"{evidence.size_bytes / 1e6:.2f}",
        f"{evidence.baseline_size_bytes / evidence.size_bytes:.1f}x",
        f"{evidence.quality.value:.4g}" if evidence.quality else "-",
        drop(evidence.quality),
        f"{latency.median_ms:.2f}" if latency else "-",
        f"{latency.speedup:.2f}x" if latency else "-",
    ]


def drop(record: Quality | None) -> str:
    """How much worse than the baseline in percent (points of a score), with the paired interval."""
    if record is None:
        return "no labelled data"
    bounds = record.drop_interval
    return f"{record.drop * 100:+.2f} [{bounds.low * 100:+.2f},{bounds.high * 100:+.2f}]"


def _model_table(manifests: list[Manifest], served: Mapping[str, str] | None) -> list[RenderableType]:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    headings = ["", "MB", "smaller", _metric(manifests), "worse by % [95%]", _workload(manifests), "faster"]
    for heading in headings + (["p50/p99 ms"] if served is not None else []):
        # Where space is short, a long variant name is what gives way.
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    for manifest in manifests:
        last = [served.get(manifest.tag, "-")] if served is not None else []
        table.add_row(manifest.variant, *cells(manifest.evidence), *last)
    return [Text(f"\n{manifests[0].name}", style="bold"), table]


def _metric(manifests: Sequence[Manifest]) -> str:
    qualities = (m.evidence.quality for m in manifests if m.evidence and m.evidence.quality)
    return next((quality.metric for quality in qualities), "quality")


def _workload(manifests: Sequence[Manifest]) -> str:
    latencies = (m.evidence.latency[0] for m in manifests if m.evidence and m.evidence.latency)
    return next((f"{latency.workload} ms" for latency in latencies), "ms")


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    tensors = (*manifest.signature.inputs, *manifest.signature.outputs)
    return [
        ("bundle", f"{manifest.tag}:{manifest.version}"),
        ("task", manifest.task),
        ("source", manifest.lineage.source),
        *(("step", f"{step.method} {_pairs(step.config)}") for step in manifest.lineage.steps),
        *(("tensor", f"{t.name} {t.dtype} {list(t.shape)}") for t in tensors),
        *(("file", f"{name} {record.size:,} bytes") for name, record in manifest.files.items()),
        *(("also", _judged(quality)) for quality in (manifest.evidence.also if manifest.evidence else ())),
        ("made with", _pairs(manifest.provenance.versions)),
    ]


def _judged(quality: Quality) -> str:
    return (
        f"{quality.metric} {quality.value:.4g}, baseline {quality.baseline:.4g}, worse by % {drop(quality)}"
    )


def _pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items() if key != "method")


def _latencies(evidence: Evidence) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("workload", "median ms", "p90 ms", "baseline ms", "faster [95%]"):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    for row in evidence.latency:
        figures = (row.median_ms, row.p90_ms, row.baseline_median_ms)
        table.add_row(row.workload, *(f"{figure:.3g}" for figure in figures), _speedup(row))
    return table


def _speedup(latency: Latency) -> str:
    bounds = latency.speedup_interval
    return f"{latency.speedup:.2f}x [{bounds.low:.2f}, {bounds.high:.2f}]"
