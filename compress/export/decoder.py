"""Export a Hugging Face decoder as one ONNX graph over in-place KV buffers.

The model's own code is traced; only its attention is replaced, through transformers' `AttentionInterface`, by
onnxruntime's `GroupQueryAttention`, which appends to the cache and masks by each row's length. So every
architecture that uses the interface exports, pruned ones with layers of different shapes too.
It does not quantize: the graph is float32. `fusion` rewrites it for onnxruntime.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from compress.errors import ExportError
from compress.export.fusion import fuse_decoder
from compress.export.graph import save_program, tracing
from runtime.decoder import (
    INPUT_IDS,
    LOGIT_POSITIONS,
    LOGITS,
    POSITION_IDS,
    SEQLENS_K,
    TOTAL_LENGTH,
    cache_names,
)
from runtime.manifest import DecoderGraph, KVLayer

ATTENTION = "modelpress_group_query_attention"
EXPERTS = "batched_mm"
ATTENTION_HINT = "a decoder needs transformers' attention interface, and positions that are no bias (ALiBi)"


def export_decoder(model: Any, path: Path) -> DecoderGraph:
    """Write `model` (a transformers causal language model, float32, on the CPU) to `path`.

    Graph inputs: input_ids and position_ids int64 [batch, sequence], seqlens_k int32 [batch] (tokens in the
    cache afterwards, minus one), total_sequence_length int32 (their maximum plus one), logit_positions int64
    [kept], and per layer past_key_i, past_value_i float32 [batch, heads, capacity, head_dim].
    Outputs: logits float32 [batch, kept, vocabulary], present_key_i, present_value_i (bind them to the past).
    Raises ExportError for a model that does not use transformers' attention interface.
    """
    layers = kv_layers(model)
    wrapper = _Decoder(model).eval()
    with exporting_attention(model), tracing(type(model).__name__, ATTENTION_HINT), torch.inference_mode():
        program: Any = torch.onnx.export(
            wrapper,
            _example(layers, model.config.vocab_size),
            dynamo=True,
            dynamic_shapes=_axes(len(layers)),
            input_names=[
                INPUT_IDS,
                POSITION_IDS,
                SEQLENS_K,
                TOTAL_LENGTH,
                LOGIT_POSITIONS,
                *cache_names(len(layers), "past"),
            ],
            output_names=[LOGITS, *cache_names(len(layers), "present")],
            verbose=False,
        )
    fuse_decoder(program.model, model.config.max_position_embeddings)
    save_program(program, path)
    return DecoderGraph(
        file=path.name,
        layers=layers,
        vocab_size=model.config.vocab_size,
        context_length=model.config.max_position_embeddings,
    )


def kv_layers(model: Any) -> tuple[KVLayer, ...]:
    """Each layer's cache shape, found by watching one eager forward pass: no configuration key is trusted."""
    seen = _ShapeCache()
    with exporting_attention(model, _shape_probe), torch.inference_mode():
        model(input_ids=torch.zeros(1, 2, dtype=torch.int64), past_key_values=seen, use_cache=True)
    if not seen.shapes:
        raise ExportError(
            f"{type(model).__name__} does not use transformers' attention interface; it cannot get a KV cache"
        )
    return tuple(KVLayer(heads=shape[1], head_dim=shape[3]) for _, shape in sorted(seen.shapes.items()))


@dataclass
class _Call:
    """The traced call's tensors, for the attention function, which transformers calls without them."""

    past: list[tuple[Tensor, Tensor]]
    seqlens_k: Tensor
    total_length: Tensor
    present: dict[int, list[Tensor]] = field(default_factory=dict)


class GraphCache(Cache):  # type: ignore[misc]
    """A stand-in for transformers' cache: the operator itself appends, so `update` passes through."""

    def __init__(self) -> None:
        self.layers: list[Any] = []
        self.layer_class_to_replicate, self.offloading = None, False

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        return key, value

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        return 1, 0


class _ShapeCache(GraphCache):
    """Notes the shapes of the keys that each layer would cache."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: dict[int, torch.Size] = {}

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.shapes[layer_idx] = key.shape
        return key, value


class _Decoder(nn.Module):
    """The model with the graph's signature."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        seqlens_k: Tensor,
        total_length: Tensor,
        logit_positions: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, list[Tensor]]:
        cache = GraphCache()
        _current.append(_Call(past, seqlens_k, total_length))
        output = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=logit_positions,
        )
        call = _current.pop()
        return output.logits, [tensor for layer in range(len(past)) for tensor in call.present[layer]]


_current: list[_Call] = []


def _group_query_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    """The new tokens' query [batch, heads, length, dim], key and value [batch, kv_heads, length, dim]."""
    call = _current[-1]
    batch, heads, length, dim = query.shape
    packed = [tensor.transpose(1, 2).reshape(batch, length, -1) for tensor in (query, key, value)]
    past_key, past_value = call.past[module.layer_idx]
    window = kwargs.get("sliding_window") or -1
    output, *present = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (*packed, past_key, past_value, call.seqlens_k, call.total_length),
        attrs={
            "num_heads": heads,
            "kv_num_heads": key.shape[1],
            "scale": float(scaling),
            "do_rotary": 0,
            "local_window_size": window,
            "softcap": float(kwargs.get("softcap") or 0.0),
        },
        dtypes=(query.dtype, past_key.dtype, past_value.dtype),
        shapes=(packed[0].shape, past_key.shape, past_value.shape),
        version=1,
    )
    call.present[module.layer_idx] = list(present)
    return output.reshape(batch, length, heads, dim), None


def _shape_probe(module: Any, query: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    return query.transpose(1, 2), None


@contextmanager
def exporting_attention(model: Any, function: Any = _group_query_attention) -> Iterator[None]:
    before, experts = model.config._attn_implementation, model.config._experts_implementation
    AttentionInterface.register(ATTENTION, function)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, lambda *args, **kwargs: None)
    model.set_attn_implementation(ATTENTION)
    # The one way of running a mixture of experts that is free of loops over data.
    model.config._experts_implementation = EXPERTS
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        model.config._experts_implementation = experts


def _example(layers: tuple[KVLayer, ...], vocab_size: int) -> tuple[Any, ...]:
    # Different sizes from 2 on: torch.export takes 0 and 1 for constants, and equal sizes for one axis.
    batch, length, capacity, kept = 2, 3, 7, 5
    past = [
        tuple(torch.zeros(batch, layer.heads, capacity, layer.head_dim) for _ in ("key", "value"))
        for layer in layers
    ]
    return (
        torch.zeros(batch, length, dtype=torch.int64),
        torch.arange(length).repeat(batch, 1),
        torch.full((batch,), length - 1, dtype=torch.int32),
        torch.tensor(length, dtype=torch.int32),
        torch.zeros(kept, dtype=torch.int64),
        past,
    )


def _axes(layers: int) -> tuple[Any, ...]:
    batch, length, capacity, kept = (
        torch.export.Dim(name, min=1, max=1 << 20) for name in ("batch", "sequence", "capacity", "kept")
    )
    cache = ({0: batch, 2: capacity}, {0: batch, 2: capacity})
    return ({0: batch, 1: length}, {0: batch, 1: length}, {0: batch}, {}, {0: kept}, [cache] * layers)
