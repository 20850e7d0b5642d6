"""A decoder over slot KV buffers: prefill a prompt once, then one token a step for every active slot.

Slot `i` is row `i` of one buffer per layer, so the active slots must be the first ones (`move` keeps them
dense). The graph's past and present are bound to the same memory: GroupQueryAttention writes new keys and
values in place and nothing is copied. It does not choose tokens and does not know of requests.
The trade-off: every slot reserves memory for the whole context, for a layout with no indirection.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.errors import CapacityError, PromptTooLong
from runtime.manifest import DecoderGraph
from runtime.processing import Array

# GroupQueryAttention finds sequence lengths by these; the names are the export's own contract.
INPUT_IDS, POSITION_IDS = "input_ids", "position_ids"
SEQLENS_K, TOTAL_LENGTH = "seqlens_k", "total_sequence_length"
LOGIT_POSITIONS, LOGITS = "logit_positions", "logits"


def cache_names(layers: int, when: str) -> list[str]:
    """Names of the cache tensors, `when` being `past` or `present`: key and value of each layer in turn."""
    return [f"{when}_{part}_{layer}" for layer in range(layers) for part in ("key", "value")]


class Decoder:
    """KV buffers for `slots` sequences over one session. One thread at a time may use it."""

    def __init__(self, session: ort.InferenceSession, graph: DecoderGraph, slots: int) -> None:
        self.graph = graph
        self.slots = slots
        self.lengths = np.zeros(slots, np.int64)
        self._session = session
        self._cache = new_cache(graph, slots, graph.context_length)
        self._steps: dict[int, _Step] = {}

    def prefill(self, slot: int, tokens: Array) -> Array:
        """Append `tokens` [length] to a slot's cache; logits [vocabulary] after the last one.

        Raises CapacityError for a slot that does not exist, PromptTooLong where the context is full.
        """
        if not 0 <= slot < self.slots:
            raise CapacityError(f"slot {slot} of {self.slots} does not exist; start with more slots")
        start, count = int(self.lengths[slot]), len(tokens)
        self._check_room(start + count)
        rows = [buffer[slot : slot + 1] for buffer in self._cache]
        step = _Step(self._session, self.graph, rows, count, 1)
        step.input_ids[:] = tokens
        step.position_ids[:] = np.arange(start, start + count)
        step.logit_positions[:] = count - 1
        logits: Array = step.run(np.array([start + count]))[0, 0].copy()
        self.lengths[slot] += count
        return logits

    def decode(self, tokens: Array) -> Array:
        """Append `tokens[i]` to slot i, for the first len(tokens) slots; logits [slots, vocabulary].

        The array is reused by the next call: copy what must last.
        """
        batch = len(tokens)
        self._check_room(int(self.lengths[:batch].max()) + 1)
        step = self._decode_step(batch)
        step.input_ids[:, 0] = tokens
        step.position_ids[:, 0] = self.lengths[:batch]
        self.lengths[:batch] += 1
        return step.run(self.lengths[:batch])[:, 0]

    def move(self, source: int, target: int) -> None:
        """Copy a slot's cache over another's, so that the active slots stay dense at the front."""
        length = int(self.lengths[source])
        for buffer in self._cache:
            buffer[target, :, :length] = buffer[source, :, :length]
        self.lengths[target] = length

    def release(self, slot: int) -> None:
        """Forget a slot's tokens; its memory is reused by the next prefill."""
        self.lengths[slot] = 0

    def _decode_step(self, batch: int) -> "_Step":
        # Shapes and addresses depend on the batch size alone, so each size is bound once.
        if batch not in self._steps:
            self._steps[batch] = _Step(self._session, self.graph, [b[:batch] for b in self._cache], 1, 1)
        return self._steps[batch]

    def _check_room(self, length: int) -> None:
        limit = self.graph.context_length
        if length > limit:
            raise PromptTooLong(f"{length} tokens do not fit the context of {limit}; send fewer")


def score(session: ort.InferenceSession, graph: DecoderGraph, input_ids: Array) -> Array:
    """Logits after every token, float32 [batch, sequence, vocabulary], for input_ids int64 [batch, sequence].

    Runs the graph that ships, on a cache of its own: perplexity is measured on what is served.
    """
    batch, length = input_ids.shape
    step = _Step(session, graph, new_cache(graph, batch, length), length, length)
    step.input_ids[:] = input_ids
    step.position_ids[:] = step.logit_positions[:] = np.arange(length)
    return step.run(np.full(batch, length))


def new_cache(graph: DecoderGraph, batch: int, capacity: int) -> list[Array]:
    """Zeroed key and value buffers, [batch, heads, capacity, head_dim] for each layer in turn."""
    shapes = [(batch, layer.heads, capacity, layer.head_dim) for layer in graph.layers for _ in "kv"]
    return [np.zeros(shape, graph.kv_dtype) for shape in shapes]


@dataclass(slots=True, init=False)
class _Step:
    """One call's tensors, bound to their addresses: fill the inputs in place, then `run`, again and again."""

    input_ids: Array
    position_ids: Array
    logit_positions: Array
    seqlens_k: Array
    total_length: Array
    logits: Array
    _cache: list[Array]
    _session: Any
    _binding: Any

    def __init__(
        self, session: ort.InferenceSession, graph: DecoderGraph, cache: list[Array], length: int, kept: int
    ) -> None:
        batch = len(cache[0])
        self.input_ids = np.zeros((batch, length), np.int64)
        self.position_ids = np.zeros((batch, length), np.int64)
        self.logit_positions = np.zeros(kept, np.int64)
        self.seqlens_k = np.zeros(batch, np.int32)
        self.total_length = np.zeros((), np.int32)
        self.logits = np.empty((batch, kept, graph.vocab_size), np.float32)
        # The binding holds addresses only: this keeps the memory behind them alive.
        self._cache = cache
        self._session, self._binding = session, session.io_binding()
        layers = len(graph.layers)
        self._bind_inputs(
            {
                INPUT_IDS: self.input_ids,
                POSITION_IDS: self.position_ids,
                SEQLENS_K: self.seqlens_k,
                TOTAL_LENGTH: self.total_length,
                LOGIT_POSITIONS: self.logit_positions,
                **dict(zip(cache_names(layers, "past"), cache, strict=True)),
            }
        )
        self._bind_output(LOGITS, self.logits)
        for name, buffer in zip(cache_names(layers, "present"), cache, strict=True):
            self._bind_output(name, buffer)

    def run(self, totals: Array) -> Array:
        """Run; `totals` [batch] counts the cached tokens of each row afterwards. Gives the logits."""
        self.seqlens_k[:] = totals - 1
        self.total_length[...] = totals.max()
        self._session.run_with_iobinding(self._binding)
        return self.logits

    def _bind_inputs(self, tensors: dict[str, Array]) -> None:
        for name, tensor in tensors.items():
            self._binding.bind_input(name, "cpu", 0, tensor.dtype, tensor.shape, tensor.ctypes.data)

    def _bind_output(self, name: str, tensor: Array) -> None:
        self._binding.bind_output(name, "cpu", 0, tensor.dtype, tensor.shape, tensor.ctypes.data)
