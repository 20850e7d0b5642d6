"""The verdict on a variant: worse or slower than the recipe allows, or fit to publish. Pure, no I/O."""

from dataclasses import dataclass

from compress.recipe import GateConfig
from runtime.manifest import Evidence


@dataclass(frozen=True, slots=True)
class Verdict:
    """`failures` says in words what fell short; `notes`, what could not be told apart from noise."""

    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing fell short."""
        return not self.failures


def judge(evidence: Evidence, gate: GateConfig) -> Verdict:
    """Compare `evidence` with what `gate` asks for."""
    failures, notes = [], []
    quality = evidence.quality
    if quality is None:
        notes.append(
            "quality was not measured: there are no labels to judge by (with arrays: integers, one an "
            "example); give 'data' with some"
        )
    # Said this way round, what is not a number is no pass.
    elif gate.max_drop is not None and not quality.drop <= gate.max_drop:
        failures.append(
            f"{quality.metric} {quality.value:.4g} against {quality.baseline:.4g}: "
            f"worse by {quality.drop:.2%}, allowed {gate.max_drop:.2%}"
        )
    elif gate.max_drop is not None and quality.drop_interval.high > gate.max_drop:
        notes.append(
            f"the drop of {quality.metric} is {quality.drop:.2%} but its 95% interval reaches "
            f"{quality.drop_interval.high:.2%} over {quality.examples} examples"
        )
    slowest = min(evidence.latency, key=lambda latency: latency.speedup, default=None)
    if gate.min_speedup is not None and slowest and not slowest.speedup >= gate.min_speedup:
        failures.append(
            f"{slowest.workload}: {slowest.speedup:.2f}x the baseline's speed, asked {gate.min_speedup:g}x"
        )
    return Verdict(tuple(failures), tuple(notes))
