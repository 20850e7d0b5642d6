"""The live line on the terminal while a run goes on. Redrawn by rich's own thread, twice a second.

Twice, because drawing holds the interpreter for about a millisecond in which the generator cannot send.
Nothing is drawn when standard error is not a terminal.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadtests.pacing import now
from loadtests.session import Recording, Watch

REDRAWS_PER_SECOND = 2
LATEST = 100


def live(total_s: float) -> Watch:
    """A watch that shows where a run of `total_s` seconds stands."""
    console = Console(stderr=True)

    @contextmanager
    def watch(recording: Recording) -> Iterator[None]:
        if not console.is_terminal:
            yield
            return
        with Live(
            console=console,
            get_renderable=lambda: line(recording, total_s),
            refresh_per_second=REDRAWS_PER_SECOND,
            transient=True,
        ):
            yield

    return watch


def line(recording: Recording, total_s: float) -> Text:
    """`3.5 / 11 s   sent 70   in flight 2   failed 0   latest p50 4.1 ms`"""
    elapsed = max(0.0, now() - recording.start)
    latest = [sample.latency_ms for sample in recording.samples[-LATEST:] if sample.error is None]
    parts = [
        f"{elapsed:.1f} / {total_s:g} s",
        f"sent {recording.sent}",
        f"in flight {recording.sent - len(recording.samples)}",
        f"failed {recording.failed}",
        f"latest p50 {np.median(latest):.1f} ms" if latest else "",
    ]
    return Text("   ".join(parts))
