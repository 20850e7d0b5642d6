"""The `kv-cache` step: keys and values stored in half precision, computed with in float32.

steps:
  - method: kv-cache
    dtype: float16                 # twice the tokens in the same memory

The attention operator converts as it reads and writes, so only the types of the cache change. The trade-off:
long caches are read more slowly, so this is for where memory is short. int8 is not offered: it needs scales
from calibration (docs/log.md has the figures of both).
"""

from pathlib import Path
from typing import Any, Literal

from compress.artifact import GraphArtifact
from compress.errors import StepError
from compress.step import Calibration, Figures, GraphMethod, StepConfig, register
from runtime.decoder import cache_names
from runtime.manifest import DecoderGraph, Task


class KVCacheConfig(StepConfig):
    """The type that keys and values are stored in."""

    method: Literal["kv-cache"] = "kv-cache"
    dtype: Literal["float16"] = "float16"

    @property
    def variant(self) -> str:
        """As `kv16`."""
        return "kv16"


def run(
    config: KVCacheConfig, graph: GraphArtifact, folder: Path, calibration: Calibration
) -> tuple[GraphArtifact, Figures]:
    """Write each of the decoder's graphs with the new cache type into `folder`."""
    import onnx

    from compress.export.graph import save_model

    assert isinstance(graph.graph, DecoderGraph)
    for file in graph.graph.files:
        model = onnx.load(graph.folder / file)
        retype_cache(model, len(graph.graph.layers))
        save_model(model, folder / file)
    described = graph.graph.model_copy(update={"kv_dtype": config.dtype})
    values = 2 * sum(layer.heads * layer.head_dim for layer in graph.graph.layers)
    figures = {"bytes_per_token_before": 4 * values, "bytes_per_token_after": 2 * values}
    return GraphArtifact(folder, described, graph.signature), figures


def retype_cache(model: Any, layers: int) -> None:
    """Make every past and present tensor of `model` float16, in place."""
    from onnx import TensorProto

    cache = {*cache_names(layers, "past"), *cache_names(layers, "present")}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in cache:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16


def check(config: KVCacheConfig, task: Task) -> None:
    """Refuse models without a cache, before anything is trained."""
    if task != "text-generation":
        raise StepError("kv-cache is for decoders (text-generation): other models keep no keys and values")


register(GraphMethod("kv-cache", KVCacheConfig, run, check))
