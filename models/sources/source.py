"""What every source of models yields: one module or graph, and all that judging and serving it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from models.datasets import Dataset, View, load_dataset
from models.errors import DataError
from runtime.manifest import Processing, Task

if TYPE_CHECKING:
    from torch import nn

    from models.training import Objective


@dataclass(frozen=True, slots=True, eq=False)
class SourceModel:
    """A model ready to be compressed. Exactly one of `module` (eval mode, float32, CPU) and `graph` is set.

    `module` is called with tensors in the order of `input_names`. `files` ship with the model, such as
    {"tokenizer.json": path}; `details` (training figures, where they come from) go into the bundle's lineage.
    `objective` is the loss that the model was trained by, where it is not its task's.
    """

    name: str
    reference: str
    task: Task
    processing: Processing
    labels: tuple[str, ...]
    module: nn.Module | None
    graph: Path | None
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dataset: Dataset | None
    files: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    objective: Objective | None = None


def bundle_name(text: str) -> str:
    """`text` as the name of a bundle: lower case, with only letters, digits, `_`, `.` and `-`."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("_.-") or "model"


def attach(data: str, view: View, reference: str) -> Dataset:
    """`data` as the model of `view` sees it. Raises DataError for another task's data, or other labels."""
    dataset = load_dataset(data, view)
    if dataset.task != view.task:
        raise DataError(f"data '{data}' is for {dataset.task}, and {reference} is for {view.task}")
    if dataset.labels and view.labels and len(dataset.labels) != len(view.labels):
        raise DataError(
            f"data '{data}' has {len(dataset.labels)} classes, and {reference} has {len(view.labels)}"
        )
    return dataset
