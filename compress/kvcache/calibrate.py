"""What an int8 cache's scales are made from, and what they cost, on windows of training data.

The scales come from one set of windows and are checked on another: what is clipped, and how far the logits
move. What that costs in perplexity is the gate's to say.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.kvcache.scales import cache_peaks, cache_scales, clipped_share
from compress.quantize.blockwise import Floats
from compress.quantize.observe import Feeds, observe
from compress.step import Figures
from runtime.decoder import INPUT_IDS, cache_names, score
from runtime.manifest import DecoderGraph
from runtime.processing import Array
from runtime.session import open_session


def calibrate(
    graph: GraphArtifact, inputs: Sequence[Feeds], samples: int, margin: float, folder: Path
) -> tuple[dict[str, Floats], Figures]:
    """Scales float32 [heads, head_dim] by the name of the past tensor; the share that the rest has clipped.

    The first `samples` windows of `inputs` make the scales, the others show what is clipped. `folder` holds a
    changed graph while it runs. Raises StepError for data that the graph refuses.
    """
    assert isinstance(graph.graph, DecoderGraph)
    layers = len(graph.graph.layers)
    present, past = cache_names(layers, "present"), cache_names(layers, "past")
    peaks: dict[str, Floats] = {}
    clipped: list[float] = []
    windows = _windows(inputs)

    def widen(name: str, values: Array) -> None:
        found = cache_peaks(values)
        peaks[name] = np.maximum(peaks[name], found) if name in peaks else found

    def count(name: str, values: Array) -> None:
        clipped.append(clipped_share(values, scales[name]))

    model = onnx.load(graph.path)
    observe(model, graph.graph, [{INPUT_IDS: windows[:samples]}], folder, present, widen)
    scales = {name: cache_scales(found, margin) for name, found in peaks.items()}
    observe(model, graph.graph, [{INPUT_IDS: windows[samples:]}], folder, present, count)
    named = {old: scales[new] for old, new in zip(past, present, strict=True)}
    return named, {"clipped": float(np.mean(clipped))}


def logit_deviation(
    before: GraphArtifact, after: GraphArtifact, inputs: Sequence[Feeds], samples: int
) -> Figures:
    """How far logits move at most, beside the largest, on the windows after the first `samples`.

    Raises StepError where onnxruntime cannot run the graph over such a cache.
    """
    assert isinstance(before.graph, DecoderGraph)
    assert isinstance(after.graph, DecoderGraph)
    windows = _windows(inputs)[samples:, : before.graph.context_length]
    wanted = score(open_session(before.path), before.graph, windows)
    try:
        got = score(open_session(after.path), after.graph, windows)
    except Exception as error:  # onnxruntime raises a class of its own for each of its status codes
        reason = str(error).splitlines()[0][:200]
        raise StepError(
            f"kv-cache: onnxruntime does not run this model over an int8 cache ({reason})"
        ) from None
    return {
        "logit_deviation": float(np.abs(got - wanted).max()),
        "largest_logit": float(np.abs(wanted).max()),
        "greedy_changed": float((got.argmax(-1) != wanted.argmax(-1)).mean()),
    }


def _windows(inputs: Sequence[Feeds]) -> Array:
    windows: Array = np.concatenate([batch[INPUT_IDS] for batch in inputs])
    return windows
