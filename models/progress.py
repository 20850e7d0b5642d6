"""A progress bar on stderr for one training run. stdout stays for what a command answers."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from models.training import Report


@contextmanager
def training_bar(title: str) -> Iterator[Report]:
    """A `report` for `models.training.train` that moves a bar; silent where stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(title, total=1.0, step=0, loss=float("nan"))

        def report(done: float, step: int, loss: float) -> None:
            progress.update(bar, completed=done, step=step, loss=loss)

        yield report
