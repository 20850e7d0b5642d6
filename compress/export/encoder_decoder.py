"""Export a Hugging Face encoder-decoder as two ONNX graphs: an encoder, and a decoder over KV buffers.

As in `decoder`, the model's own code is traced and only its attention replaced. What the decoder's
cross-attention would cache is what the encoder's graph gives; the decoder reads it by the same
GroupQueryAttention, with nothing to append. Positions, learned, sinusoidal or relative (T5's), become tables,
so that rows of different lengths decode together. It does not quantize.
The trade-off: a source is encoded alone, so the encoder's graph knows no padding.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import EncoderDecoderCache

from compress.errors import ExportError
from compress.export.decoder import ATTENTION_HINT, GraphCache, exporting_attention
from compress.export.fusion import fuse_decoder, fuse_encoder
from compress.export.graph import save_program, tracing
from runtime.cross_attention import SOURCE_IDS, SOURCE_SEQLENS_K, SOURCE_TOTAL_LENGTH, source_names
from runtime.decoder import (
    INPUT_IDS,
    LOGIT_POSITIONS,
    LOGITS,
    POSITION_IDS,
    SEQLENS_K,
    TOTAL_LENGTH,
    cache_names,
)
from runtime.manifest import DecoderGraph, EncoderGraph, KVLayer

ENCODER = "encoder.onnx"
# Relative positions know no end: T5's code names what it was trained on `n_positions`, or nothing.
DEFAULT_CONTEXT = 512

Pairs = list[tuple[Tensor, Tensor]]


def export_encoder_decoder(model: Any, path: Path) -> DecoderGraph:
    """Write `model` (a transformers sequence-to-sequence model, float32, on the CPU): its decoder to `path`.

    The encoder goes beside it: input_ids int64 [batch, sequence] in, and per layer of the decoder the
    cross-attention's key and value, float32 [batch, heads, sequence, head_dim], out. The decoder has the
    inputs and outputs of `export_decoder`, and the same again for the source: source_seqlens_k,
    source_total_length, source_past_key_i, source_past_value_i, source_present_key_i, source_present_value_i.
    Raises ExportError for a model that does not use transformers' attention interface.
    """
    own, crossed = _layers(model)
    context = _context_length(model.config)
    _export_encoder(model, len(crossed), path.with_name(ENCODER))
    _export_decoder(model, own, crossed, context, path)
    return DecoderGraph(
        file=path.name,
        layers=own,
        vocab_size=model.config.vocab_size,
        context_length=context,
        encoder=EncoderGraph(file=ENCODER, layers=crossed, context_length=context),
    )


def _context_length(config: Any) -> int:
    for name in ("max_position_embeddings", "n_positions"):
        if length := getattr(config, name, None):
            return int(length)
    return DEFAULT_CONTEXT


class _Noted(GraphCache):
    """Keeps what each layer would cache."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        self.pairs[layer_idx] = key, value
        return key, value


def _cache(own: GraphCache, crossed: GraphCache, source: Pairs | None = None) -> Any:
    """A cache for a traced call; with a `source`, cross-attention reads its keys and values there."""
    if source is not None:
        crossed.layers = [SimpleNamespace(keys=key, values=value) for key, value in source]
    cache = EncoderDecoderCache(own, crossed)
    cache.is_updated = {layer: source is not None for layer in range(len(crossed.layers))}
    return cache


def _layers(model: Any) -> tuple[tuple[KVLayer, ...], tuple[KVLayer, ...]]:
    """The shapes of each decoder layer's own cache and of its source's, found by watching one eager pass."""
    own, crossed = _Noted(), _Noted()
    tokens = torch.zeros(1, 2, dtype=torch.int64)
    with exporting_attention(model, _encoding_attention), torch.inference_mode():
        cache = _cache(own, crossed)
        model(input_ids=tokens, decoder_input_ids=tokens, past_key_values=cache, use_cache=True)
    if not own.pairs or own.pairs.keys() != crossed.pairs.keys():
        raise ExportError(
            f"{type(model).__name__} does not use transformers' attention interface; it cannot get a KV cache"
        )
    shapes = ([each.pairs[layer][0].shape for layer in sorted(each.pairs)] for each in (own, crossed))
    first, second = (tuple(KVLayer(heads=s[1], head_dim=s[3]) for s in found) for found in shapes)
    return first, second


class _Encoder(nn.Module):
    """The encoder, followed by each cross-attention's projections of what it gives."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        crossed = _Noted()
        # The decoder runs for its projections of the source alone; the rest has no reader and is dropped.
        self.model(
            input_ids=input_ids,
            decoder_input_ids=input_ids[:, :1],
            past_key_values=_cache(GraphCache(), crossed),
            use_cache=True,
        )
        return [tensor for layer in sorted(crossed.pairs) for tensor in crossed.pairs[layer]]


def _export_encoder(model: Any, layers: int, path: Path) -> None:
    axes = {
        0: torch.export.Dim("batch", min=1, max=1 << 20),
        1: torch.export.Dim("sequence", min=1, max=1 << 20),
    }
    traced = tracing(type(model).__name__, ATTENTION_HINT)
    with exporting_attention(model, _encoding_attention), traced, torch.inference_mode():
        program: Any = torch.onnx.export(
            _Encoder(model).eval(),
            (torch.ones(2, 3, dtype=torch.int64),),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=[SOURCE_IDS],
            output_names=source_names(layers, "present"),
            verbose=False,
        )
    fuse_encoder(program.model)
    save_program(program, path)


def _encoding_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    """The encoder's own attention: tensors [batch, heads, length, dim]. The decoder's passes through."""
    if module.is_decoder:
        return query.transpose(1, 2), None
    batch, heads, length, dim = query.shape
    packed = [tensor.transpose(1, 2).reshape(batch, length, -1) for tensor in (query, key, value)]
    bias = kwargs.get("position_bias")
    output = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (*packed, None, None, bias) if bias is not None else packed,
        attrs={"num_heads": heads, "scale": float(scaling)},
        dtype=query.dtype,
        shape=packed[0].shape,
        version=1,
    )
    return output.reshape(batch, length, heads, dim), None


@dataclass
class _Call:
    """The traced call's tensors, for the attention function, which transformers calls without them."""

    position_ids: Tensor
    seqlens_k: Tensor
    total_length: Tensor
    past: Pairs
    source_seqlens_k: Tensor
    source_total_length: Tensor
    source: Pairs
    present: dict[int, list[Tensor]] = field(default_factory=dict)
    source_present: dict[int, list[Tensor]] = field(default_factory=dict)


_current: list[_Call] = []


class _Decoder(nn.Module):
    """The decoder with the graph's signature."""

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
        past: Pairs,
        source_seqlens_k: Tensor,
        source_total_length: Tensor,
        source: Pairs,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        call = _Call(
            position_ids, seqlens_k, total_length, past, source_seqlens_k, source_total_length, source
        )
        _current.append(call)
        keep = self.model.get_decoder().register_forward_hook(_keeping(logit_positions))
        try:
            logits = self.model(
                # Never read: the source's keys and values are there already.
                encoder_outputs=(input_ids[:, :1, None].to(source[0][0].dtype),),
                decoder_input_ids=input_ids,
                past_key_values=_cache(GraphCache(), GraphCache(), source),
                use_cache=True,
            ).logits
        finally:
            keep.remove()
            _current.pop()
        return logits, _flat(call.present), _flat(call.source_present)


def _keeping(positions: Tensor) -> Any:
    def keep(module: nn.Module, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, positions]
        return output

    return keep


def _flat(pairs: dict[int, list[Tensor]]) -> list[Tensor]:
    return [tensor for layer in sorted(pairs) for tensor in pairs[layer]]


def _export_decoder(
    model: Any, own: tuple[KVLayer, ...], crossed: tuple[KVLayer, ...], context: int, path: Path
) -> None:
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(_positions_by_row(model, context))
        stack.enter_context(exporting_attention(model, _decoding_attention))
        stack.enter_context(tracing(type(model).__name__, ATTENTION_HINT))
        program: Any = torch.onnx.export(
            _Decoder(model).eval(),
            _example(own, crossed),
            dynamo=True,
            dynamic_shapes=_axes(len(own)),
            input_names=[
                *(INPUT_IDS, POSITION_IDS, SEQLENS_K, TOTAL_LENGTH, LOGIT_POSITIONS),
                *cache_names(len(own), "past"),
                *(SOURCE_SEQLENS_K, SOURCE_TOTAL_LENGTH),
                *source_names(len(crossed), "past"),
            ],
            output_names=[
                LOGITS,
                *cache_names(len(own), "present"),
                *source_names(len(crossed), "present"),
            ],
            verbose=False,
        )
    fuse_decoder(program.model, context)
    save_program(program, path)


def _decoding_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    """The new tokens' query [batch, heads, length, dim]; their key and value, or those of the source."""
    call, layer = _current[-1], module.layer_idx
    if key is call.source[layer][0]:
        none = query.new_zeros(query.shape[0], 0, key.shape[1] * key.shape[3])
        lengths = call.source_seqlens_k, call.source_total_length
        output, *present = _attend(query, none, none, (key, value), lengths, scaling, causal=0)
        call.source_present[layer] = present
        return output, None
    batch, _, length, _ = query.shape
    new_key, new_value = (each.transpose(1, 2).reshape(batch, length, -1) for each in (key, value))
    lengths, bias = (call.seqlens_k, call.total_length), kwargs.get("position_bias")
    output, *present = _attend(query, new_key, new_value, call.past[layer], lengths, scaling, bias=bias)
    call.present[layer] = present
    return output, None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: tuple[Tensor, Tensor],
    lengths: tuple[Tensor, Tensor],
    scaling: float,
    causal: int = 1,
    bias: Tensor | None = None,
) -> tuple[Tensor, ...]:
    batch, heads, length, dim = query.shape
    flat = query.transpose(1, 2).reshape(batch, length, -1)
    inputs = (flat, key, value, *past, *lengths)
    output, *present = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        inputs if bias is None else (*inputs, None, None, None, bias),
        attrs={
            "num_heads": heads,
            "kv_num_heads": past[0].shape[1],
            "scale": float(scaling),
            "do_rotary": 0,
            "causal": causal,
        },
        dtypes=(query.dtype, past[0].dtype, past[1].dtype),
        shapes=(flat.shape, past[0].shape, past[1].shape),
        version=1,
    )
    return output.reshape(batch, length, heads, dim), *present


@contextmanager
def _positions_by_row(model: Any, context: int) -> Iterator[None]:
    """Let the decoder look its positions up by `position_ids`, where its own code counts them from zero."""
    decoder = model.get_decoder()
    with ExitStack() as stack:
        if hasattr(decoder, "embed_positions"):
            stack.callback(setattr, decoder, "embed_positions", decoder.embed_positions)
            decoder.embed_positions = _Positions(_position_table(model, decoder, context))
        for module in decoder.modules():
            if getattr(module, "has_relative_attention_bias", False):
                module.compute_bias = _RelativeBias(module, context)
                stack.callback(delattr, module, "compute_bias")
        yield


def _position_table(model: Any, decoder: Any, context: int) -> Tensor:
    """What the decoder adds at each position, [context, width]: watched, whatever it is made of."""
    seen: list[Tensor] = []
    watch = decoder.embed_positions.register_forward_hook(lambda module, args, output: seen.append(output))
    tokens = torch.full((1, context), 1 if model.config.pad_token_id == 0 else 0)
    with exporting_attention(model, _encoding_attention):
        hidden = torch.zeros(1, 1, decoder.get_input_embeddings().weight.shape[1])
        decoder(input_ids=tokens, encoder_hidden_states=hidden, use_cache=False)
    watch.remove()
    return seen[0].reshape(context, -1).clone()


class _Positions(nn.Module):
    """Rows of a table, by each row's positions, whatever it is called with."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return functional.embedding(_current[-1].position_ids, self.table)


class _RelativeBias:
    """T5's bias (arXiv:1910.10683, section 2.1): by how far back a key is, from a table."""

    def __init__(self, module: Any, context: int) -> None:
        # The last of `context` queries sees every distance, the farthest first.
        by_key = module.compute_bias(1, context, past_seen_tokens=context - 1)[0, :, 0]
        self._table = by_key.flip(-1).T.contiguous().clone()

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        call = _current[-1]
        zero, one = torch.tensor(0), torch.tensor(1)
        keys = torch.onnx.ops.symbolic(
            "Range",
            (zero, call.total_length.to(torch.int64), one),
            dtype=torch.int64,
            shape=(call.past[0][0].shape[2],),  # at most; it is the call's total length
            version=18,
        )
        # Keys that are yet to come are masked.
        distance = (call.position_ids[:, :, None] - keys).clamp(min=0)
        return functional.embedding(distance, self._table).permute(0, 3, 1, 2)


def _example(own: tuple[KVLayer, ...], crossed: tuple[KVLayer, ...]) -> tuple[Any, ...]:
    # Different sizes from 2 on: torch.export takes 0 and 1 for constants, and equal sizes for one axis.
    batch, length, capacity, kept, source = 2, 3, 7, 5, 11

    def rows(layers: tuple[KVLayer, ...], room: int) -> Pairs:
        return [
            (
                torch.zeros(batch, each.heads, room, each.head_dim),
                torch.zeros(batch, each.heads, room, each.head_dim),
            )
            for each in layers
        ]

    return (
        torch.zeros(batch, length, dtype=torch.int64),
        torch.arange(length).repeat(batch, 1),
        torch.full((batch,), length - 1, dtype=torch.int32),
        torch.tensor(length, dtype=torch.int32),
        torch.zeros(kept, dtype=torch.int64),
        rows(own, capacity),
        torch.full((batch,), source - 1, dtype=torch.int32),
        torch.tensor(source, dtype=torch.int32),
        rows(crossed, source),
    )


def _axes(layers: int) -> tuple[Any, ...]:
    batch, length, capacity, kept, source = (
        torch.export.Dim(name, min=1, max=1 << 20)
        for name in ("batch", "sequence", "capacity", "kept", "source")
    )
    own, crossed = ({0: batch, 2: capacity},) * 2, ({0: batch, 2: source},) * 2
    tokens = {0: batch, 1: length}
    return tokens, tokens, {0: batch}, {}, {0: kept}, [own] * layers, {0: batch}, {}, [crossed] * layers
