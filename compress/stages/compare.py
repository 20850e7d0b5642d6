"""What a graph is worth beside its baseline: quality, and latency on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compress.step import Figures
from runtime.bundle import Bundle

if TYPE_CHECKING:
    from models.sources.source import SourceModel


def make(
    folder: Path,
    bundles: Callable[[], tuple[Bundle, Bundle]],
    load: Callable[[], "SourceModel"],
    judged: tuple[Path, Path],
) -> Figures:
    """The evidence. Both pairs are the graph's and the baseline's; `judged` are the judge's folders."""
    from compress import measure

    variant, baseline = bundles()
    return measure.measure(variant, baseline, load(), *judged).model_dump(mode="json")
