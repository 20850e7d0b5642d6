"""Whether a loaded model still answers: the count of failures in a row, and who wants to know of them.

A client's mistake is no failure. Three in a row make a model broken: one may be an odd request, two a
coincidence.
"""

from collections.abc import Callable

BROKEN_AFTER = 3


class Health:
    """Fed by whoever runs the model; `on_change` is called after each news."""

    def __init__(self) -> None:
        self.successes = 0
        self.failures_in_a_row = 0
        self.on_change: Callable[[], None] | None = None

    @property
    def broken(self) -> bool:
        """Whether the latest runs all failed."""
        return self.failures_in_a_row >= BROKEN_AFTER

    def succeeded(self) -> None:
        """An answer was made."""
        self.successes += 1
        self.failures_in_a_row = 0
        self._tell()

    def failed(self) -> None:
        """The model raised, or did not come back."""
        self.failures_in_a_row += 1
        self._tell()

    def _tell(self) -> None:
        if self.on_change:
            self.on_change()
