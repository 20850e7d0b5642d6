"""The `kv-cache` step: keys and values stored in half precision or int8, computed with in float32.

steps:
  - method: kv-cache
    dtype: int8                    # four times the tokens in the same memory; float16: twice
    samples: 32                    # windows of training data that show each channel's range
    margin: 1.1                    # how far beyond it the scales reach

The attention operator converts as it reads and writes, so only the cache's types change, and for int8 it gets
its scales. The trade-offs: half precision is read more slowly; int8 has fixed scales, and a channel that
leaves its range is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.kvcache.config import KVCacheConfig
from compress.step import Calibration, Figures, GraphMethod, StepConfig, register
from runtime.decoder import cache_names
from runtime.manifest import DecoderGraph, Task

if TYPE_CHECKING:
    from compress.quantize.blockwise import Floats

# Windows beyond those that the scales are made from, to see what the scales are worth.
CHECKED = 4


def run(
    config: KVCacheConfig, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> tuple[GraphArtifact, Figures]:
    """Write each of the decoder's graphs with the new cache type into `folder`."""
    assert isinstance(graph.graph, DecoderGraph)
    described = graph.graph.model_copy(update={"kv_dtype": config.dtype})
    target = GraphArtifact(folder, described, graph.signature)
    if config.dtype == "int8":
        from compress.kvcache.calibrate import calibrate, logit_deviation

        inputs = list(calibration.draw(samples(config)))
        scales, figures = calibrate(graph, inputs, config.samples, config.margin, folder)
        _write(graph, folder, scales)
        figures |= logit_deviation(graph, target, inputs, config.samples)
    else:
        figures = {}
        _write(graph, folder, None)
    values = 2 * sum(layer.heads * layer.head_dim for layer in graph.graph.layers)
    size = 1 if config.dtype == "int8" else 2
    return target, {"bytes_per_token_before": 4 * values, "bytes_per_token_after": size * values, **figures}


def samples(config: KVCacheConfig) -> int:
    """Windows for the scales, and those that show what they are worth."""
    return config.samples + CHECKED if config.dtype == "int8" else 0


def _write(graph: GraphArtifact, folder: Path, scales: Mapping[str, Floats] | None) -> None:
    """Every graph of the decoder, over a cache of int8 with `scales` by tensor, or of half precision."""
    import onnx

    from compress.export.graph import save_model
    from compress.kvcache.rewrite import retype_cache, scale_cache

    assert isinstance(graph.graph, DecoderGraph)
    cache = {name for when in ("past", "present") for name in cache_names(len(graph.graph.layers), when)}
    for file in graph.graph.files:
        model = onnx.load(graph.folder / file)
        if scales is None:
            retype_cache(model, cache, onnx.TensorProto.FLOAT16)
        else:
            retype_cache(model, cache, onnx.TensorProto.INT8)
            scale_cache(model, scales)
        save_model(model, folder / file)


def check(config: KVCacheConfig, task: Task) -> None:
    """Refuse models without a cache, before anything is trained."""
    if task != "text-generation":
        raise StepError("kv-cache is for decoders (text-generation): other models keep no keys and values")


def conflict(late: Any, early: StepConfig) -> str | None:
    """A cache has one type."""
    if early.method != "kv-cache":
        return None
    return "'kv-cache' has set the type of the cache already; keep one of the two"


register(GraphMethod("kv-cache", KVCacheConfig, run, check, conflict=conflict, samples=samples))
