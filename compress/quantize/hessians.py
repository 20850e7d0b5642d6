"""What GPTQ must know of each linear layer: X^T X over its inputs, from real data through the float32 graph.

The graph runs once per batch with the layers' inputs as extra outputs; products are added up and no
activation is kept. Layers that read one tensor share one matrix. Two trade-offs: every layer sees the inputs
of the float32 model, not of the layers quantized before it (one pass instead of one a layer), and padding
counts as input.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper

from compress.errors import StepError
from compress.quantize.gptq import Doubles
from compress.quantize.graph import shared_weights, stored_weights
from runtime.decoder import (
    INPUT_IDS,
    LOGIT_POSITIONS,
    POSITION_IDS,
    SEQLENS_K,
    TOTAL_LENGTH,
    cache_names,
    new_cache,
)
from runtime.manifest import DecoderGraph, Graph
from runtime.processing import Array
from runtime.session import open_session

Feeds = dict[str, Array]


def input_products(
    model: ModelProto, graph: Graph, batches: Iterable[Feeds], folder: Path
) -> dict[str, Doubles]:
    """X^T X float64 [in, in] by the name of the tensor X, for every layer that GPTQ can take.

    `batches` are of the graph's inputs, or for a decoder of `input_ids` int64 [windows, sequence]. `folder`
    holds the changed graph while it runs. Raises StepError for inputs that the graph refuses.
    """
    wanted = _activations(model)
    scratch = folder / "observed.onnx"
    _save_observed(model, wanted, scratch)
    try:
        session = open_session(scratch)
        computed = [name for name in wanted if name not in {value.name for value in model.graph.input}]
        totals: dict[str, Doubles] = {}
        for feeds in _feeds(graph, batches):
            try:
                outputs = session.run(computed, feeds) if computed else []
            except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
                reason = str(error).splitlines()[0][:200]
                raise StepError(f"gptq: the graph refuses the calibration inputs ({reason})") from None
            seen = {**feeds, **dict(zip(computed, outputs, strict=True))}
            for name in wanted:
                _add(totals, name, seen[name])
    finally:
        scratch.unlink(missing_ok=True)
    return totals


def _activations(model: ModelProto) -> list[str]:
    """Every tensor that is multiplied by a weight which no embedding shares."""
    shared = shared_weights(model, stored_weights(model))
    layers = [uses for uses in shared if not any(use.looks_up for use in uses)]
    return sorted({use.activation for uses in layers for use in uses})


def _save_observed(model: ModelProto, wanted: list[str], path: Path) -> None:
    observed = ModelProto()
    observed.CopyFrom(model)
    there = {value.name for value in (*model.graph.input, *model.graph.output)}
    observed.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in wanted if name not in there
    )
    onnx.save_model(observed, str(path))


def _feeds(graph: Graph, batches: Iterable[Feeds]) -> Iterator[Feeds]:
    for batch in batches:
        if not isinstance(graph, DecoderGraph):
            yield batch
            continue
        # One window at a time: a batch of them would hold every layer's inputs for all of them at once.
        for window in batch[INPUT_IDS][:, : graph.context_length]:
            yield _decoder_feeds(graph, window)


def _decoder_feeds(graph: DecoderGraph, window: Array) -> Feeds:
    """One window [sequence] from an empty cache, with logits wanted everywhere: the head sees it all."""
    length = len(window)
    positions = np.arange(length, dtype=np.int64)
    names = cache_names(len(graph.layers), "past")
    return {
        INPUT_IDS: window[None].astype(np.int64),
        POSITION_IDS: positions[None],
        LOGIT_POSITIONS: positions,
        SEQLENS_K: np.array([length - 1], np.int32),
        TOTAL_LENGTH: np.array(length, np.int32),
        **dict(zip(names, new_cache(graph, 1, length), strict=True)),
    }


def _add(totals: dict[str, Doubles], name: str, inputs: Array) -> None:
    rows = inputs.reshape(-1, inputs.shape[-1])
    if not np.isfinite(rows).all():
        raise StepError("gptq: a layer's inputs are not finite on this calibration data; check both")
    # float32 within a batch, where its products are exact enough, and float64 across them.
    product = (rows.T @ rows).astype(np.float64)
    totals[name] = totals[name] + product if name in totals else product
