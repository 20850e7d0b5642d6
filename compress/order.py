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
