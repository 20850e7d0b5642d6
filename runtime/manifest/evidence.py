"""Where a bundle comes from, what was measured on it, and what it would take to make it again."""

from typing import Any

from pydantic import Field

from runtime.manifest.values import Frozen


class StepRecord(Frozen):
    """One step of the lineage: what was asked, and what it measured."""

    method: str
    config: dict[str, Any] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0


class Lineage(Frozen):
    """Where a bundle comes from: its source, and every step applied to it, in order."""

    source: str
    steps: tuple[StepRecord, ...] = ()


class Interval(Frozen):
    """A 95% interval."""

    low: float
    high: float


class Quality(Frozen):
    """A metric of the shipped graph beside the baseline's, on the same examples.

    `drop` is how much worse the variant is: absolute for a score in [0, 1], relative for a perplexity.
    Negative means better. Its interval comes from a paired bootstrap over examples.
    """

    metric: str
    higher_is_better: bool
    value: float
    interval: Interval
    baseline: float
    drop: float
    drop_interval: Interval
    examples: int


class Latency(Frozen):
    """Medians of interleaved runs of the variant and the baseline on one machine, in milliseconds."""

    workload: str
    median_ms: float
    p90_ms: float
    baseline_median_ms: float
    speedup: float
    speedup_interval: Interval
    runs: int


class Sample(Frozen):
    """One input and what the shipped graph answered, for people to read."""

    input: str
    output: str
    baseline: str


class BatchInvariance(Frozen):
    """What decoding in a batch changes: the logits of the same sequences alone and together.

    `deviation` is the largest difference of a logit, beside the largest logit; `changed` of `tokens` greedy
    choices differ. Zero and zero where the kernels compute each row by itself.
    """

    batch: int
    deviation: float
    largest_logit: float
    changed: int
    tokens: int


class Evidence(Frozen):
    """What was measured on the graph that ships.

    `quality` is by the metric that a gate goes by, `also` the same answers by others.
    """

    size_bytes: int
    baseline_size_bytes: int
    quality: Quality | None = None
    also: tuple[Quality, ...] = Field(default=(), exclude_if=lambda also: not also)
    latency: tuple[Latency, ...] = ()
    parity: dict[str, float] = Field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    batch_invariance: BatchInvariance | None = Field(default=None, exclude_if=lambda found: found is None)
    machine: dict[str, Any] = Field(default_factory=dict)


class Provenance(Frozen):
    """What it would take to make the same bundle again."""

    versions: dict[str, str] = Field(default_factory=dict)
    seed: int = 0
    data_fingerprint: str = ""
