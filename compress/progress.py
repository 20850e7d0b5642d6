"""What a run is doing, on standard error: one line a stage, with its time or that it was cached."""

import sys

from rich.console import Console

from compress.cache import Stage


class Narrator:
    """A pipeline's `progress`. Nothing is live while a stage runs: training draws its own bar."""

    def __init__(self, title: str) -> None:
        self._console = Console(file=sys.stderr, highlight=False)
        self._console.print(f"[bold]{title}[/bold]")

    def __call__(self, name: str, stage: Stage | None) -> None:
        if stage is None:
            return
        took = "cached" if stage.cached else f"{stage.seconds:.1f} s"
        self._console.print(f"  {name:<14} {took}")
