"""The weights of a source after a torch step."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compress.step import Figures, StepConfig, TorchMethod

if TYPE_CHECKING:
    from models.sources.source import SourceModel


def make(
    folder: Path, method: TorchMethod, step: StepConfig, load: Callable[[], "SourceModel"], seed: int
) -> Figures:
    """Take what `load` gives through `step`."""
    from compress.weights import save_weights

    source, figures = method.run(step, load(), seed)
    save_weights(source, folder)
    return figures
