"""Bundles side by side in the terminal."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from runtime.manifest import Evidence, Interval, Latency, Manifest, Quality


def bundle_table(manifests: Sequence[Manifest]) -> Table:
    """One row a bundle: size, quality with its interval, in-process latency, beside the baseline."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("bundle", "size MB", "quality", "drop (95%)", "latency ms", "speed-up"):
        table.add_column(heading, justify="left" if heading == "bundle" else "right")
    for manifest in manifests:
        table.add_row(manifest.tag, *cells(manifest.evidence))
    return table


def cells(evidence: Evidence | None) -> list[str]:
    """Size, quality, drop, latency and speed-up of one bundle, as the tables show them."""
    if evidence is None:
        return ["not measured", "", "", "", ""]
    latency = evidence.latency[0] if evidence.latency else None
    return [
        size(evidence),
        quality(evidence.quality),
        drop(evidence.quality),
        timing(latency),
        speedup(latency),
    ]


def size(evidence: Evidence) -> str:
    """Megabytes, and how many times smaller than the baseline."""
    times = evidence.baseline_size_bytes / evidence.size_bytes
    return f"{evidence.size_bytes / 1e6:.2f} ({times:.1f}x)"


def quality(record: Quality | None) -> str:
    """The metric and its value."""
    return f"{record.metric} {record.value:.4g}" if record else "no labelled data"


def drop(record: Quality | None) -> str:
    """How much worse than the baseline, with the paired interval."""
    return f"{record.drop:+.2%} {interval(record.drop_interval)}" if record else ""


def interval(bounds: Interval) -> str:
    """A pair of percentages."""
    return f"[{bounds.low:+.2%}, {bounds.high:+.2%}]"


def timing(latency: Latency | None) -> str:
    """The median and what it is the median of."""
    return f"{latency.median_ms:.3g} ({latency.workload})" if latency else ""


def speedup(latency: Latency | None) -> str:
    """Over the baseline, with its interval."""
    if not latency:
        return ""
    bounds = latency.speedup_interval
    return f"{latency.speedup:.2f}x [{bounds.low:.2f}, {bounds.high:.2f}]"


def describe(manifest: Manifest) -> Group:
    """Everything a manifest says, for people."""
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column()
    for name, value in _facts(manifest):
        facts.add_row(name, value)
    parts: list[RenderableType] = [facts, bundle_table([manifest])]
    if manifest.evidence and manifest.evidence.latency:
        parts.append(_latencies(manifest.evidence))
    return Group(*parts)


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    tensors = (*manifest.signature.inputs, *manifest.signature.outputs)
    return [
        ("bundle", f"{manifest.tag}:{manifest.version}"),
        ("task", manifest.task),
        ("source", manifest.lineage.source),
        *(("step", f"{step.method} {_pairs(step.config)}") for step in manifest.lineage.steps),
        *(("tensor", f"{t.name} {t.dtype} {list(t.shape)}") for t in tensors),
        *(("file", f"{name} {record.size:,} bytes") for name, record in manifest.files.items()),
        ("made with", _pairs(manifest.provenance.versions)),
    ]


def _pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items() if key != "method")


def _latencies(evidence: Evidence) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("workload", "median ms", "p90 ms", "baseline ms", "speed-up"):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    for row in evidence.latency:
        table.add_row(
            row.workload,
            f"{row.median_ms:.3g}",
            f"{row.p90_ms:.3g}",
            f"{row.baseline_median_ms:.3g}",
            speedup(row),
        )
    return table
