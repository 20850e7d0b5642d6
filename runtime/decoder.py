"""A decoder over slot KV buffers: a prompt chunk by chunk, then one token a step for every active slot.

The slots that decode together must be the first ones (`move` and `swap` keep them so). The graph's past and
present are bound to the same memory: GroupQueryAttention writes new keys and values in place and nothing is
copied. Calls with an adapter among their rows run on a graph of their own, over the same cache. It does not
choose tokens and does not know of requests.
onnxruntime's CPU kernel appends several tokens to one row at a time, or one token to each of several rows:
hence a call of its own for each prompt's chunk, and drafts verified for one sequence only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.adapters import Adapter, adapter_inputs
from runtime.cross_attention import CrossAttention
from runtime.embedding import Embedding
from runtime.errors import CapacityError, PromptTooLong
from runtime.kv_cache import KVCache
from runtime.manifest import DecoderGraph
from runtime.phases import Phase, Phases, single
from runtime.processing import Array

# GroupQueryAttention finds sequence lengths by these; the names are the export's own contract.
INPUT_IDS, INPUTS_EMBEDS, POSITION_IDS = "input_ids", "inputs_embeds", "position_ids"
SEQLENS_K, TOTAL_LENGTH = "seqlens_k", "total_sequence_length"
LOGIT_POSITIONS, LOGITS = "logit_positions", "logits"


def cache_names(layers: int, when: str) -> list[str]:
    """Names of the cache tensors, `when` being `past` or `present`: key and value of each layer in turn."""
    return [f"{when}_{part}_{layer}" for layer in range(layers) for part in ("key", "value")]


# Calls of one row and so few tokens, as drafts are proposed and checked in, are bound once: binding takes a
# fifth of a millisecond, a small model's whole step less than one.
FEW_TOKENS = 16
# A row by itself is scored so many tokens at a time: attention takes memory for each times all before it.
SCORED_TOKENS = 512

# Gives the session of the graph that takes adapters; only called once there is an adapter.
AdaptedSession = Callable[[], ort.InferenceSession]


class Decoder:
    """A KV cache for `slots` sequences over one session, or one for each phase. One thread at a time.

    `kv_tokens` is how many tokens all slots together may hold (default: all the context in every slot);
    whoever calls keeps to it. `encoder` is the session of the graph's encoder, where it has one.
    """

    def __init__(
        self,
        session: ort.InferenceSession | Phases,
        graph: DecoderGraph,
        slots: int,
        kv_tokens: int | None = None,
        adapted: AdaptedSession | None = None,
        encoder: ort.InferenceSession | None = None,
    ) -> None:
        self.graph = graph
        self.slots = slots
        self.cache = KVCache(graph, slots, kv_tokens)
        # The LoRA adapter that each slot's sequence runs with; None is the model itself.
        self.adapters: list[Adapter | None] = [None] * slots
        self.source: CrossAttention | None = None
        if encoder is not None and graph.encoder is not None:
            self.source = CrossAttention(encoder, graph.encoder, slots, kv_tokens)
        self._adapted = adapted
        self._phases = session if isinstance(session, Phases) else single(session, graph)
        # How many calls each graph has run, by its file.
        self.graph_calls: dict[str, int] = {}
        self._steps: dict[tuple[Adapter | None, ...], _Step] = {}
        # By tokens, logits kept, and the size whose graph is wanted; of the first slot, which speculates.
        self._short_steps: dict[tuple[int, int, int], _Step] = {}
        # One for all batch sizes, which each have a step of their own; what is not written takes no memory.
        self._logits = _empty_logits(graph, slots, 1)

    @property
    def lengths(self) -> Array:
        """How many tokens each slot's cache holds, int64 [slots]."""
        lengths: Array = self.cache.lengths
        return lengths

    def longest_call(self, slot: int) -> int:
        """How many tokens one call may append to a slot: the kernel takes no more than a source has."""
        return int(self.source.cache.lengths[slot]) if self.source else self.graph.context_length

    def encode(self, slot: int, tokens: Array) -> None:
        """Read a source, `tokens` [length], for a slot's answer to attend to. Raises PromptTooLong."""
        assert self.source is not None
        self.source.encode(slot, tokens)

    def prefill(self, slot: int, tokens: Array, adapter: Adapter | None = None) -> Array:
        """Append `tokens` [length] to a slot's cache; logits [vocabulary] after the last one.

        Raises CapacityError for a slot that does not exist, PromptTooLong where the context is full.
        """
        self.adapters[slot : slot + 1] = [adapter]
        logits: Array = self._append(slot, tokens, kept=1, as_of=len(tokens))[0].copy()
        return logits

    def verify(self, slot: int, tokens: Array) -> Array:
        """Append `tokens` [length] to a slot's cache; logits [length, vocabulary] after each of them.

        The array is reused by the next call. Raises what `prefill` raises.
        """
        # On the graph that would have decoded them one by one, or the answer would not be the same.
        return self._append(slot, tokens, kept=len(tokens), as_of=1)

    def decode(self, tokens: Array) -> Array:
        """Append `tokens[i]` to slot i, for the first len(tokens) slots; logits [slots, vocabulary].

        The array is reused by the next call: copy what must last.
        """
        batch = len(tokens)
        lengths = self.cache.lengths[:batch]
        self._check_room(int(lengths.max()) + 1)
        step = self._decode_step(batch)
        self._note(step)
        step.input_ids[:, 0] = tokens
        step.position_ids[:, 0] = lengths
        self.cache.grow(slice(batch), 1)
        if self.source:
            self.source.select(0, batch)
        return step.run(lengths)[:, 0]

    def rewind(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of a slot."""
        self.cache.lengths[slot] = length

    def move(self, source: int, target: int) -> None:
        """Copy a slot's cache over another's, so that the active slots stay dense at the front."""
        self.cache.copy(source, target)
        if self.source:
            self.source.move(source, target)
        self.adapters[target] = self.adapters[source]

    def swap(self, one: int, other: int) -> None:
        """Exchange two slots."""
        self.cache.swap(one, other)
        if self.source:
            self.source.swap(one, other)
        self.adapters[one], self.adapters[other] = self.adapters[other], self.adapters[one]

    def release(self, slot: int) -> None:
        """Forget a slot's tokens; its memory is reused by the next prefill."""
        self.rewind(slot, 0)
        if self.source:
            self.source.release(slot)
        self.adapters[slot] = None

    def _append(self, slot: int, tokens: Array, kept: int, as_of: int) -> Array:
        if not 0 <= slot < self.slots:
            raise CapacityError(f"slot {slot} of {self.slots} does not exist; start with more slots")
        start, count = int(self.cache.lengths[slot]), len(tokens)
        self._check_room(start + count)
        step = self._append_step(slot, count, kept, as_of)
        self._note(step)
        step.input_ids[:] = tokens
        step.position_ids[:] = np.arange(start, start + count)
        step.logit_positions[:] = np.arange(count - kept, count)
        self.cache.grow(slice(slot, slot + 1), count)
        if self.source:
            self.source.select(slot, 1)
        found: Array = step.run(self.cache.lengths[slot : slot + 1])[0]
        return found

    def _note(self, step: "_Step") -> None:
        self.graph_calls[step.file] = self.graph_calls.get(step.file, 0) + 1

    def _append_step(self, slot: int, count: int, kept: int, as_of: int) -> "_Step":
        rows = self.adapters[slot : slot + 1]
        known = slot == 0 and count <= FEW_TOKENS and not any(rows)
        step = self._short_steps.get((count, kept, as_of)) if known else None
        if step is None:
            step = self._bind(slot, count, _empty_logits(self.graph, 1, kept), rows, as_of)
        if known:
            self._short_steps[count, kept, as_of] = step
        return step

    def _decode_step(self, batch: int) -> "_Step":
        # Shapes and addresses depend on the batch size and its adapters alone, so each is bound once.
        rows = tuple(self.adapters[:batch])
        if rows not in self._steps:
            # Stacked factors take memory: those of one batch with adapters are kept, not of every one.
            self._steps = {known: step for known, step in self._steps.items() if not any(known)}
            self._steps[rows] = self._bind(0, 1, self._logits[:batch], rows, batch)
        return self._steps[rows]

    def _bind(
        self, first: int, length: int, logits: Array, rows: Sequence[Adapter | None], as_of: int
    ) -> "_Step":
        """A call over `rows` from slot `first` on, on the graph for calls of `as_of`, or for adapters."""
        cache = self.cache.rows(first, len(rows))
        if not any(rows):
            phase = self._phases.choose(as_of)
            more, present = self.source.tensors(first, len(rows)) if self.source else ({}, {})
            return _Step(phase, self.graph, cache, length, logits, more, present)
        assert self._adapted is not None
        assert self.graph.adapters is not None
        # It was made of the first graph, and holds no weights of its own.
        plain = self._phases.choose(1)
        phase = replace(plain, file=self.graph.adapters.file, session=self._adapted())
        return _Step(phase, self.graph, cache, length, logits, adapter_inputs(rows, self.graph.adapters))

    def _check_room(self, length: int) -> None:
        limit = self.graph.context_length
        if length > limit:
            raise PromptTooLong(f"{length} tokens do not fit the context of {limit}; send fewer")


def score(
    session: ort.InferenceSession,
    graph: DecoderGraph,
    input_ids: Array,
    more: Mapping[str, Array] = MappingProxyType({}),
    chunk: int = SCORED_TOKENS,
    embedding: Embedding | None = None,
) -> Array:
    """Logits after every token, float32 [batch, sequence, vocabulary], for input_ids int64 [batch, sequence].

    Runs the graph that ships, on a cache of its own: perplexity is measured on what is served. `more` are
    further inputs, where the session is of the graph that takes adapters; `embedding` is that of a graph that
    takes rows instead of tokens. A single row is read by `chunk` tokens; of several, the kernel takes more
    than one token only at once.
    """
    batch, length = input_ids.shape
    logits, cache = _empty_logits(graph, batch, length), new_cache(graph, batch, length)
    width, phase = chunk if batch == 1 else length, Phase(1, graph.file, session, embedding)
    for start in range(0, length, width):
        part = logits[:, start : start + width]
        count = part.shape[1]
        step = _Step(phase, graph, cache, count, part, more)
        step.input_ids[:] = input_ids[:, start : start + count]
        step.position_ids[:] = np.arange(start, start + count)
        step.logit_positions[:] = np.arange(count)
        step.run(np.full(batch, start + count))
    return logits


def new_cache(graph: DecoderGraph, batch: int, capacity: int) -> list[Array]:
    """Zeroed key and value buffers, [batch, heads, capacity, head_dim] for each layer in turn."""
    shapes = [(batch, layer.heads, capacity, layer.head_dim) for layer in graph.layers for _ in "kv"]
    return [np.zeros(shape, graph.kv_dtype) for shape in shapes]


def _empty_logits(graph: DecoderGraph, batch: int, kept: int) -> Array:
    return np.empty((batch, kept, graph.vocab_size), np.float32)


@dataclass(slots=True, init=False)
class _Step:
    """One call's tensors, bound to their addresses: fill the inputs in place, then `run`, again and again.

    The logits of `logits.shape[1]` positions are written into `logits` [batch, positions, vocabulary].
    """

    input_ids: Array
    position_ids: Array
    logit_positions: Array
    seqlens_k: Array
    total_length: Array
    logits: Array
    file: str
    _embedding: Embedding | None
    _inputs_embeds: Array
    _kept_alive: tuple[object, ...]
    _session: Any
    _binding: Any

    def __init__(
        self,
        phase: Phase,
        graph: DecoderGraph,
        cache: list[Array],
        length: int,
        logits: Array,
        more: Mapping[str, Array] = MappingProxyType({}),
        present: Mapping[str, Array] = MappingProxyType({}),
    ) -> None:
        self.file, self._embedding = phase.file, phase.embedding
        batch = len(cache[0])
        self.input_ids = np.zeros((batch, length), np.int64)
        tokens = {INPUT_IDS: self.input_ids}
        if self._embedding:
            self._inputs_embeds = np.zeros((batch, length, self._embedding.table.width), np.float32)
            tokens = {INPUTS_EMBEDS: self._inputs_embeds}
        self.position_ids = np.zeros((batch, length), np.int64)
        self.logit_positions = np.zeros(logits.shape[1], np.int64)
        self.seqlens_k = np.zeros(batch, np.int32)
        self.total_length = np.zeros((), np.int32)
        self.logits = logits
        # The binding holds addresses only: this keeps the memory behind them alive.
        self._kept_alive = (cache, more)
        self._session, self._binding = phase.session, phase.session.io_binding()
        layers = len(graph.layers)
        self._bind_inputs(
            {
                **tokens,
                POSITION_IDS: self.position_ids,
                SEQLENS_K: self.seqlens_k,
                TOTAL_LENGTH: self.total_length,
                LOGIT_POSITIONS: self.logit_positions,
                **dict(zip(cache_names(layers, "past"), cache, strict=True)),
                **more,
            }
        )
        self._bind_output(LOGITS, self.logits)
        for name, buffer in (*zip(cache_names(layers, "present"), cache, strict=True), *present.items()):
            self._bind_output(name, buffer)

    def run(self, totals: Array) -> Array:
        """Run; `totals` [batch] counts the cached tokens of each row afterwards. Gives the logits."""
        self.seqlens_k[:] = totals - 1
        self.total_length[...] = totals.max()
        if self._embedding:
            self._embedding.look_up(self.input_ids, self._inputs_embeds)
        self._session.run_with_iobinding(self._binding)
        return self.logits

    def _bind_inputs(self, tensors: dict[str, Array]) -> None:
        for name, tensor in tensors.items():
            self._binding.bind_input(name, "cpu", 0, tensor.dtype, tensor.shape, tensor.ctypes.data)

    def _bind_output(self, name: str, tensor: Array) -> None:
        self._binding.bind_output(name, "cpu", 0, tensor.dtype, tensor.shape, tensor.ctypes.data)
