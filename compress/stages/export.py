"""The float32 graph of a source, and what is said of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress.description import Description
from compress.step import Figures
from runtime.manifest import StepRecord

if TYPE_CHECKING:
    from models.sources.source import SourceModel


def make(folder: Path, load: Callable[[], "SourceModel"], done: Sequence[StepRecord]) -> Figures:
    """Export what `load` gives, which has been through the steps `done`."""
    from compress.export.source import export

    source = load()
    artifact, figures = export(source, folder)
    artifact.save()
    first = StepRecord(method="source", figures=dict(source.details))
    records = (first, *done, StepRecord(method="export", figures=figures))
    Description.of(source, records).save(folder, source.files)
    return figures
