"""The metric of one graph on the held-out examples: its scores, example by example."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compress.step import Figures
from runtime.bundle import Bundle

if TYPE_CHECKING:
    from models.sources.source import SourceModel


def make(
    folder: Path, bundle: Callable[[], Bundle], load: Callable[[], "SourceModel"], examples: int, seed: int
) -> Figures:
    """Judge `bundle` on the data of what `load` gives."""
    from compress import measure

    return measure.judge(bundle(), load().dataset, examples, seed, folder)
