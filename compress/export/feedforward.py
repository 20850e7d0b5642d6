"""Export a feed-forward torch module as one ONNX graph with a symbolic batch (and, for text, sequence) axis.

It does not know the task: the module's named inputs and one real example are enough.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.errors import ExportError
from compress.export.graph import save_program, tracing
from compress.export.parity import run_module
from runtime.manifest import FeedForwardGraph
from runtime.processing import Array


def export_feedforward(
    module: nn.Module,
    example: Mapping[str, Array],
    output_names: Sequence[str],
    path: Path,
    *,
    ragged: bool | Mapping[str, str],
) -> FeedForwardGraph:
    """Write `module` to `path`; its forward takes the tensors of `example` in that order, float32 on the CPU.

    `ragged` makes axis 1 symbolic too: of every input, as `sequence`, or of the inputs that it names, as it
    says. Raises ExportError where torch cannot trace the module.
    """
    axes = {name: _axes(name, ragged) for name in example}
    given = len(run_module(module, example))  # what fails here is no matter of the export
    if given != len(output_names):
        raise ExportError(
            f"{type(module).__name__} returns {given} tensors where one is wanted for each of "
            f"{', '.join(output_names)}; let its forward return that alone"
        )
    # One row would be taken for a constant.
    rows = [torch.from_numpy(np.resize(value, (2, *value.shape[1:]))) for value in example.values()]
    hint = "remove control flow that depends on data from its forward"
    with tracing(type(module).__name__, hint), torch.inference_mode():
        program: Any = torch.onnx.export(
            module,
            tuple(rows),
            dynamo=True,
            dynamic_shapes=tuple(
                dict.fromkeys(range(len(names)), torch.export.Dim.DYNAMIC) for names in axes.values()
            ),
            input_names=list(example),
            output_names=list(output_names),
            verbose=False,
        )
    save_program(program, path, axes)
    return FeedForwardGraph(file=path.name)


def _axes(name: str, ragged: bool | Mapping[str, str]) -> tuple[str, ...]:
    """The names of an input's symbolic axes, which are its first."""
    if isinstance(ragged, bool):
        return ("batch", "sequence") if ragged else ("batch",)
    return ("batch", ragged[name]) if name in ragged else ("batch",)
