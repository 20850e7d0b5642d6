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
from compress.export.graph import quiet_exporter, save_program
from runtime.manifest import FeedForwardGraph
from runtime.processing import Array


def export_feedforward(
    module: nn.Module,
    example: Mapping[str, Array],
    output_names: Sequence[str],
    path: Path,
    *,
    ragged: bool,
) -> FeedForwardGraph:
    """Write `module` to `path`; its forward takes the tensors of `example` in that order, float32 on the CPU.

    `ragged` makes axis 1 of every input symbolic too. Raises ExportError where torch cannot trace the module.
    """
    axes = {0: torch.export.Dim.DYNAMIC} | ({1: torch.export.Dim.DYNAMIC} if ragged else {})
    # One row would be taken for a constant.
    rows = [torch.from_numpy(np.ascontiguousarray(value[:2])) for value in example.values()]
    try:
        with quiet_exporter(), torch.inference_mode():
            program: Any = torch.onnx.export(
                module,
                tuple(rows),
                dynamo=True,
                dynamic_shapes=tuple(dict(axes) for _ in rows),
                input_names=list(example),
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds; all mean that this module does not export
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(
            f"{type(module).__name__} does not export to ONNX ({reason[:300]}); "
            "remove control flow that depends on data from its forward"
        ) from error
    save_program(program, path, axis_names=("batch", "sequence") if ragged else ("batch",))
    return FeedForwardGraph(file=path.name)
