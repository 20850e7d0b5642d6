"""The live view on the terminal while a run goes on. Redrawn by rich's own thread, twice a second.

Twice, because drawing holds the interpreter for about a millisecond in which the generator cannot send.
Nothing is drawn when standard error is not a terminal.
"""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich import box
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from loadtests.pacing import now
from loadtests.recording import Recording
from loadtests.session import Watch
from loadtests.statistics import describe
from loadtests.terminal import figure

REDRAWS_PER_SECOND = 2
LATEST = 1000
HISTORY = 40
BARS = "▁▂▃▄▅▆▇█"


class Live:
    """What a run looks like now. It is asked for twice a second, and remembers what it said."""

    def __init__(self, recording: Recording, total_s: float) -> None:
        self._recording, self._total_s = recording, total_s
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._medians: deque[float] = deque(maxlen=HISTORY)
        self._before = (now(), 0)

    def __rich__(self) -> RenderableType:
        recording = self._recording
        latest = recording.latest_ms(LATEST)
        self._remember(latest)
        grid = Grid.grid(padding=(0, 2))
        grid.add_row("answered", f"{self._rates[-1]:.1f}/s", Text(sparkline(self._rates), "cyan"))
        if len(latest):
            distribution = describe(latest)
            assert distribution is not None
            shown = "  ".join(f"{name} {figure(distribution, name)}" for name in ("p50", "p99"))
            grid.add_row("latency", f"{shown} ms", Text(sparkline(self._medians), "green"))
        grid.add_row("in flight", str(recording.sent - recording.ended), "")
        failed = Text(str(recording.failed), "bold red" if recording.failed else "")
        grid.add_row("failed", failed, Text(errors(recording), "red"))
        return Panel(grid, title=self._title(), title_align="left", box=box.ROUNDED, expand=False)

    def _title(self) -> str:
        elapsed = max(0.0, now() - self._recording.start)
        total = f" / {self._total_s:g}" if math.isfinite(self._total_s) else ""
        return f"{elapsed:.1f}{total} s   sent {self._recording.sent}"

    def _remember(self, latest: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        moment, ended = now(), self._recording.ended
        before, ended_before = self._before
        self._rates.append((ended - ended_before) / max(moment - before, 1e-3))
        self._before = (moment, ended)
        if len(latest):
            self._medians.append(float(np.median(latest)))


def live(total_s: float) -> Watch:
    """A watch that shows where a run of `total_s` seconds stands."""
    from rich.live import Live as Display

    console = Console(stderr=True)

    @contextmanager
    def watch(recording: Recording) -> Iterator[None]:
        if not console.is_terminal:
            yield
            return
        with Display(
            Live(recording, total_s), console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True
        ):
            yield

    return watch


def errors(recording: Recording) -> str:
    """The kinds so far, in the order of their coming."""
    return ", ".join(recording.table.kinds)


def sparkline(values: deque[float]) -> str:
    """One character for each value, from none to the highest."""
    top = max(values, default=0.0) or 1.0
    return "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] for value in values)
