"""Bundles of one model, put together: which is the baseline, in what order, in what colour. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.reporting.served import LoadTest, Unreadable
from runtime.manifest import Evidence, Latency, Manifest, Quality, StepRecord

# Lineage steps that every bundle has, compressed or not.
MAKING = {"source", "export"}

# Hues in `page.css`; more variants than that share them, and are told apart by their labels.
HUES = 6

# How much worse a variant may be to be called a good trade-off: a point of a score in [0, 1], or three
# percent of a perplexity. The demo's own models are held to the same.
TOLERABLE_SCORE, TOLERABLE_PERPLEXITY = 0.01, 0.03


@dataclass(frozen=True, slots=True)
class Variant:
    """One bundle, its load test, and the class that colours it in every plot."""

    manifest: Manifest
    served: LoadTest | Unreadable | None
    hue: str

    @property
    def name(self) -> str:
        return self.manifest.variant

    @property
    def evidence(self) -> Evidence | None:
        return self.manifest.evidence

    @property
    def quality(self) -> Quality | None:
        return self.evidence.quality if self.evidence else None

    @property
    def is_baseline(self) -> bool:
        return is_baseline(self.manifest)

    def latency(self, workload: str) -> Latency | None:
        """The in-process measurement of `workload`."""
        records = self.evidence.latency if self.evidence else ()
        return next((record for record in records if record.workload == workload), None)


@dataclass(frozen=True, slots=True)
class Group:
    """The bundles of one model: the baseline first, if it is among them, and then from large to small."""

    name: str
    variants: tuple[Variant, ...]

    @property
    def compressed(self) -> list[Variant]:
        """Those that something was done to."""
        return [variant for variant in self.variants if not variant.is_baseline]

    @property
    def workloads(self) -> list[str]:
        """Every workload that any variant was timed on."""
        records = [record for v in self.variants if v.evidence for record in v.evidence.latency]
        return list(dict.fromkeys(record.workload for record in records))

    @property
    def metrics(self) -> list[str]:
        """Every metric that any variant was judged by: one, unless the data differed."""
        return list(dict.fromkeys(v.quality.metric for v in self.variants if v.quality))

    def best(self) -> Variant | None:
        """The smallest variant that is tolerably worse; else the least worse; None if none was judged."""
        judged = [v for v in self.compressed if v.evidence and v.quality]
        fit = [variant for variant in judged if is_tolerable(variant)]
        return min(fit, key=_size) if fit else min(judged, key=_drop, default=None)


def group_by_model(
    manifests: Sequence[Manifest], results: Mapping[str, LoadTest | Unreadable | None]
) -> list[Group]:
    """One group for each model name, in the order of their first bundles; `results` are by tag."""
    names = dict.fromkeys(manifest.name for manifest in manifests)
    return [_group(name, [m for m in manifests if m.name == name], results) for name in names]


def is_baseline(manifest: Manifest) -> bool:
    """Whether nothing was done to the model but exporting it."""
    return not compressing(manifest)


def compressing(manifest: Manifest) -> list[StepRecord]:
    """The steps of the recipe, without those that every bundle has."""
    return [step for step in manifest.lineage.steps if step.method not in MAKING]


def is_tolerable(variant: Variant) -> bool:
    """Whether the variant was judged and is not much worse."""
    quality = variant.quality
    if quality is None:
        return False
    return quality.drop <= (TOLERABLE_SCORE if quality.higher_is_better else TOLERABLE_PERPLEXITY)


def _group(
    name: str, manifests: Sequence[Manifest], results: Mapping[str, LoadTest | Unreadable | None]
) -> Group:
    ordered = sorted(manifests, key=_place)
    compressed = [manifest for manifest in ordered if not is_baseline(manifest)]
    hues = {id(manifest): f"hue{index % HUES}" for index, manifest in enumerate(compressed)}
    return Group(name, tuple(Variant(m, results.get(m.tag), hues.get(id(m), "baseline")) for m in ordered))


def _place(manifest: Manifest) -> tuple[bool, int]:
    size = manifest.evidence.size_bytes if manifest.evidence else 0
    return not is_baseline(manifest), -size


def _size(variant: Variant) -> int:
    return variant.evidence.size_bytes if variant.evidence else 0


def _drop(variant: Variant) -> float:
    """For comparisons: a drop that is not finite is the worst."""
    drop = variant.quality.drop if variant.quality else math.inf
    return drop if math.isfinite(drop) else math.inf
