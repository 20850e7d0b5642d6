"""Real data through a float32 graph, with tensors inside it looked at on the way.

The graph runs once per batch with the wanted tensors as extra outputs; nothing is kept but what `see` keeps.
Two trade-offs: every layer sees the inputs of the float32 model, not of the layers quantized before it (one
pass instead of one a layer), and padding counts as input.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper

from compress.errors import StepError
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
# What is done with a tensor, by its name and its value.
See = Callable[[str, Array], None]


def multiplied_tensors(model: ModelProto) -> list[str]:
    """Every tensor that is multiplied by a weight which no embedding shares."""
    shared = shared_weights(model, stored_weights(model))
    layers = [uses for uses in shared if not any(use.looks_up for use in uses)]
    return sorted({use.activation for uses in layers for use in uses})


def observe(
    model: ModelProto, graph: Graph, batches: Iterable[Feeds], folder: Path, wanted: Sequence[str], see: See
) -> None:
    """Show `see` each of the `wanted` tensors, batch by batch.

    `batches` are of the graph's inputs, or for a decoder of `input_ids` int64 [windows, sequence]. `folder`
    holds the changed graph while it runs. Raises StepError for inputs that the graph refuses, and for values
    that are not finite.
    """
    scratch = folder / "observed.onnx"
    _save_observed(model, wanted, scratch)
    computed = [name for name in wanted if name not in {value.name for value in model.graph.input}]
    try:
        session = open_session(scratch)
        for feeds in graph_feeds(graph, batches):
            outputs = run_graph(session, computed, feeds) if computed else []
            seen = {**feeds, **dict(zip(computed, outputs, strict=True))}
            for name in wanted:
                _check_finite(seen[name])
                see(name, seen[name])
    finally:
        scratch.unlink(missing_ok=True)


def graph_feeds(graph: Graph, batches: Iterable[Feeds]) -> Iterator[Feeds]:
    """What the graph is fed for each batch; a decoder gets every window from an empty cache."""
    for batch in batches:
        if not isinstance(graph, DecoderGraph):
            yield batch
            continue
        # One window at a time: a batch of them would hold every layer's inputs for all of them at once.
        for window in batch[INPUT_IDS][:, : graph.context_length]:
            yield _decoder_feeds(graph, window)


def run_graph(session: Any, names: Sequence[str], feeds: Feeds) -> list[Array]:
    """The outputs by these names. Raises StepError for inputs that the graph refuses."""
    try:
        outputs: list[Array] = session.run(list(names), feeds)
    except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
        reason = str(error).splitlines()[0][:200]
        raise StepError(f"quantize: the graph refuses the calibration inputs ({reason})") from None
    return outputs


def _check_finite(values: Array) -> None:
    if not np.isfinite(values).all():
        raise StepError("quantize: a layer's inputs are not finite on this calibration data; check both")


def _save_observed(model: ModelProto, wanted: Sequence[str], path: Path) -> None:
    observed = ModelProto()
    observed.CopyFrom(model)
    there = {value.name for value in (*model.graph.input, *model.graph.output)}
    observed.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in wanted if name not in there
    )
    onnx.save_model(observed, str(path))


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
