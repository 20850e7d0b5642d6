"""The live view on the terminal while a run goes on. Redrawn by rich's own thread, twice a second.

Twice, because drawing holds the interpreter for about a millisecond in which the generator cannot send.
Nothing is drawn when standard error is not a terminal.
"""

import math
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from rich import box
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from loadtests import standing
from loadtests.pacing import now
from loadtests.session import Watch
from loadtests.standing import Look, Standing
from loadtests.statistics import describe
from loadtests.terminal import figure

REDRAWS_PER_SECOND = 2
HISTORY = 40
BARS = "▁▂▃▄▅▆▇█"


class Live:
    """What a run looks like now. It is asked for twice a second, and remembers what it said."""

    def __init__(self, look: Look, total_s: float) -> None:
        self._look, self._total_s = look, total_s
        self._rates: deque[float] = deque(maxlen=HISTORY)
        self._medians: deque[float] = deque(maxlen=HISTORY)
        self._before = (now(), 0)

    def __rich__(self) -> RenderableType:
        standing = self._look()
        latest = describe(standing.latest_ms)
        self._remember(standing)
        grid = Grid.grid(padding=(0, 2))
        grid.add_row("answered", f"{self._rates[-1]:.1f}/s", Text(sparkline(self._rates), "cyan"))
        if latest:
            shown = "  ".join(f"{name} {figure(latest, name)}" for name in ("p50", "p99"))
            grid.add_row("latency", f"{shown} ms", Text(sparkline(self._medians), "green"))
        grid.add_row("in flight", str(standing.sent - standing.ended), "")
        failed = Text(str(standing.failed), "bold red" if standing.failed else "")
        grid.add_row("failed", failed, Text(", ".join(standing.kinds), "red"))
        return Panel(grid, title=self._title(standing), title_align="left", box=box.ROUNDED, expand=False)

    def _title(self, standing: Standing) -> str:
        total = f" / {self._total_s:g}" if math.isfinite(self._total_s) else ""
        return f"{standing.elapsed_s:.1f}{total} s   sent {standing.sent}"

    def _remember(self, standing: Standing) -> None:
        moment, ended = now(), standing.ended
        before, ended_before = self._before
        self._rates.append((ended - ended_before) / max(moment - before, 1e-3))
        self._before = (moment, ended)
        if standing.latest_ms:
            self._medians.append(median(standing.latest_ms))


def live(total_s: float) -> Watch:
    """A watch that shows where a run of `total_s` seconds stands."""
    return lambda recording: showing(lambda: standing.of(recording), total_s)


def shown() -> bool:
    """Whether there is anybody to look."""
    return sys.stderr.isatty()


@contextmanager
def showing(look: Look, total_s: float) -> Iterator[None]:
    """Shows what `look` sees, until the end of the context."""
    from rich.live import Live as Display

    if not shown():
        yield
        return
    display = Live(look, total_s)
    console = Console(stderr=True)
    with Display(display, console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True):
        yield


def sparkline(values: deque[float]) -> str:
    """One character for each value, from none to the highest."""
    top = max(values, default=0.0) or 1.0
    return "".join(BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] for value in values)
