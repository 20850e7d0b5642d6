"""Figures in words: the same number is written in the same way in a sentence, a plot and a table. Pure.

A difference whose 95% interval holds "none" is never called one.
"""

import math
from collections.abc import Iterator

from compress.reporting.group import Group, Variant, is_tolerable
from runtime.manifest import Evidence, Interval, Latency, Quality

MISSING = "not measured"


def number(value: float, digits: int = 3) -> str:
    """To `digits` significant digits and without exponent, as far as that is readable."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def megabytes(size: int) -> str:
    """In millions of bytes."""
    return f"{number(size / 1e6)} MB"


def milliseconds(value: float) -> str:
    """With the unit."""
    return f"{number(value)} ms"


def times(value: float) -> str:
    """A factor."""
    return f"{value:.2f}x"


def times_interval(bounds: Interval) -> str:
    """A pair of factors."""
    return f"[{bounds.low:.2f}, {bounds.high:.2f}]"


def drop(quality: Quality) -> str:
    """Signed; more is worse."""
    return f"{quality.drop:+.2%}".removesuffix("%") + _suffix(quality)


def drop_interval(quality: Quality) -> str:
    """A pair of signed drops."""
    bounds = quality.drop_interval
    return f"[{100 * bounds.low:+.2f}, {100 * bounds.high:+.2f}]"


def smaller_by(evidence: Evidence) -> float:
    """How many times the variant fits into the baseline."""
    return evidence.baseline_size_bytes / evidence.size_bytes if evidence.size_bytes else math.nan


def size_sentence(evidence: Evidence) -> str:
    """`4.6x smaller`."""
    factor = smaller_by(evidence)
    if not math.isfinite(factor):
        return f"size {MISSING}"
    if abs(factor - 1) < 0.005:
        return "same size"
    return f"{_factor(factor)} smaller" if factor > 1 else f"{_factor(1 / factor)} larger"


def quality_sentence(quality: Quality | None) -> str:
    """`perplexity 0.80% worse (95% interval 0.51% to 1.20% worse)`."""
    if quality is None:
        return f"quality {MISSING}"
    if not math.isfinite(quality.drop):
        return f"{quality.metric} is not finite"
    bounds = f"(95% interval {_span(quality)})"
    noise = ", within noise" if quality.drop and holds(quality.drop_interval, 0) else ""
    return f"{quality.metric} {change(quality)}{noise} {bounds}"


def change(quality: Quality) -> str:
    """`0.80% worse`, or `unchanged`."""
    return _sided(quality.drop, quality) if quality.drop else "unchanged"


def speed_sentence(latency: Latency) -> str:
    """`1.32x faster at decode 1 (95% interval 1.20x to 1.41x)`."""
    bounds = latency.speedup_interval
    interval = f"(95% interval {times(bounds.low)} to {times(bounds.high)})"
    if holds(bounds, 1):
        return f"speed at {latency.workload} within noise, {times(latency.speedup)} {interval}"
    if bounds.low > 1:
        return f"{times(latency.speedup)} faster at {latency.workload} {interval}"
    return f"slower at {latency.workload}, {times(latency.speedup)} the baseline's speed {interval}"


def variant_sentence(variant: Variant) -> str:
    """Size, quality and every workload's speed."""
    evidence = variant.evidence
    if evidence is None:
        return f"{variant.manifest.tag}: {MISSING}."
    speeds = [speed_sentence(latency) for latency in evidence.latency] or [f"speed {MISSING}"]
    parts = [size_sentence(evidence), quality_sentence(evidence.quality), *speeds]
    return f"{variant.manifest.tag}: {'; '.join(parts)}."


def headline(group: Group) -> str:
    """The best trade-off, with whatever speaks against it."""
    best = group.best()
    if best is None or best.evidence is None:
        return _no_best(group)
    first, *others = best.evidence.latency or [None]
    slower = [latency for latency in others if latency and latency.speedup_interval.high < 1]
    parts = [
        size_sentence(best.evidence),
        quality_sentence(best.quality),
        speed_sentence(first) if first else f"speed {MISSING}",
        *map(speed_sentence, slower),
    ]
    return f"{best.manifest.tag}: {', '.join(parts)}."


def choice(group: Group) -> str:
    """Why the headline is about that variant."""
    best = group.best()
    if best is None:
        return ""
    if is_tolerable(best):
        return (
            "The headline is about the smallest variant that loses at most 1 point of a score, "
            "or 3% of a perplexity."
        )
    return (
        "No variant stays within 1 point of a score, or 3% of a perplexity: "
        "the headline is about the one that loses least."
    )


def warnings(variant: Variant) -> Iterator[str]:
    """What is certainly worse than the baseline, in a word or two each."""
    evidence = variant.evidence
    if evidence is None:
        return
    if evidence.size_bytes > evidence.baseline_size_bytes:
        yield "larger"
    if evidence.quality and evidence.quality.drop_interval.low > 0:
        yield "worse"
    for latency in evidence.latency:
        if latency.speedup_interval.high < 1:
            yield f"slower at {latency.workload}"


def holds(bounds: Interval, value: float) -> bool:
    """Whether `value` is within the interval."""
    return bounds.low <= value <= bounds.high


def _no_best(group: Group) -> str:
    if not group.compressed:
        return f"{group.name}: only the baseline is here; there is nothing to compare it with."
    measured = [variant for variant in group.compressed if variant.evidence]
    if not measured:
        return f"{group.name}: {MISSING}."
    return f"{group.name}: quality {MISSING}, so no trade-off can be named. {variant_sentence(measured[-1])}"


def _factor(value: float) -> str:
    return f"{value:.1f}x" if value >= 1.1 else times(value)


def _sided(value: float, quality: Quality) -> str:
    amount = f"{abs(value):.2%}".removesuffix("%") + _suffix(quality)
    return f"{amount} {_side(value)}" if value else amount


def _span(quality: Quality) -> str:
    """Both ends on their sides; the side is named once where it is the same."""
    low, high = quality.drop_interval.low, quality.drop_interval.high
    if _side(low) == _side(high):
        near, far = sorted((low, high), key=abs)
        return f"{100 * abs(near):.2f} to {_sided(far, quality)}"
    return f"{_sided(low, quality)} to {_sided(high, quality)}"


def _side(value: float) -> str:
    return "better" if value < 0 else "worse"


def _suffix(quality: Quality) -> str:
    """What a drop is counted in: a score loses points, a perplexity rises by a share of itself."""
    return " points" if quality.higher_is_better else "%"
