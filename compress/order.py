"""Why a step cannot stand after another, where several methods have the same reason.

What only one method knows stands in its own `step.py`.
"""

from collections.abc import Callable

from compress.step import Conflict, StepConfig


def loses_zeros(what: str, unless: Callable[[StepConfig], bool] = lambda late: False) -> Conflict:
    """For a method that makes weights dense again by what it does, `what`; `unless` it is set not to."""

    def conflict(late: StepConfig, early: StepConfig) -> str | None:
        if early.method != "prune" or unless(late):
            return None
        return f"'{late.method}' {what}, so the zeros of 'prune' would be lost; put 'prune' after it"

    return conflict


def rounded_already(late: StepConfig, early: StepConfig) -> str | None:
    """For methods that round weights: each weight is rounded once, from the values that were trained."""
    if early.method == "qat":
        return (
            f"'qat' left integers for weights, and '{late.method}' would round them again; remove one of the "
            "two ('scheme: fp16' or 'bf16' may follow: they store what 'qat' left in float32)"
        )
    if early.method in ("quantize", "phases"):
        return (
            f"'{early.method}' has rounded the weights, and '{late.method}' rounds float32 ones; keep one "
            "('scheme: mixed' gives each weight a format of its own)"
        )
    return None
