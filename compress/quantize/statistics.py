"""What methods that look at data must know of each linear layer's inputs, added up over real ones.

GPTQ and AWQ want products of the inputs with each other, SmoothQuant the largest value of each. Layers that
read one tensor share its statistics; no activation is kept.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from onnx import ModelProto

from compress.quantize.blockwise import Floats
from compress.quantize.gptq import Doubles
from compress.quantize.observe import Feeds, multiplied_tensors, observe
from runtime.manifest import Graph
from runtime.processing import Array


def input_products(
    model: ModelProto, graph: Graph, batches: Iterable[Feeds], folder: Path
) -> dict[str, Doubles]:
    """X^T X float64 [in, in] by the name of the tensor X, for every layer that multiplies by a weight.

    Arguments and errors are those of `observe`.
    """
    totals: dict[str, Doubles] = {}

    def add(name: str, inputs: Array) -> None:
        rows = inputs.reshape(-1, inputs.shape[-1])
        # float32 within a batch, where its products are exact enough, and float64 across them.
        product = (rows.T @ rows).astype(np.float64)
        totals[name] = totals[name] + product if name in totals else product

    observe(model, graph, batches, folder, multiplied_tensors(model), add)
    return totals


def input_peaks(model: ModelProto, graph: Graph, batches: Iterable[Feeds], folder: Path) -> dict[str, Floats]:
    """The largest magnitude of each input, float32 [in], by the name of the tensor."""
    peaks: dict[str, Floats] = {}

    def widen(name: str, inputs: Array) -> None:
        largest = np.abs(inputs.reshape(-1, inputs.shape[-1])).max(0)
        peaks[name] = np.maximum(peaks[name], largest) if name in peaks else largest

    observe(model, graph, batches, folder, multiplied_tensors(model), widen)
    return peaks
