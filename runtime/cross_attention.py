"""What an encoder-decoder's answers attend to: the keys and values of each slot's source.

A source is encoded once, by itself, when its request gets a slot; then every step reads them where they are.
The decoder's cross-attention is the same operator over the same kind of buffer as its self-attention, with
nothing to append. The trade-off: a source is encoded in one go, which holds up a step by as long as it takes.
"""

import numpy as np
import onnxruntime as ort

from runtime.errors import PromptTooLong
from runtime.kv_cache import KVCache
from runtime.manifest import EncoderGraph
from runtime.processing import Array

SOURCE_IDS = "input_ids"
SOURCE_SEQLENS_K, SOURCE_TOTAL_LENGTH = "source_seqlens_k", "source_total_length"


def source_names(layers: int, when: str) -> list[str]:
    """Names of the source's tensors, `when` being `past` or `present`, as `cache_names` has them."""
    return [f"source_{when}_{part}_{layer}" for layer in range(layers) for part in ("key", "value")]


class CrossAttention:
    """An encoder, and a row of keys and values for the source in each of `slots`."""

    def __init__(
        self, session: ort.InferenceSession, graph: EncoderGraph, slots: int, tokens: int | None = None
    ) -> None:
        self.graph = graph
        self.cache = KVCache(graph, slots, tokens)
        self._session = session
        # Bound by address: whatever is in them when a call runs is what the call is told.
        self._seqlens_k = np.zeros(slots, np.int32)
        self._total = np.zeros((), np.int32)

    def encode(self, slot: int, tokens: Array) -> None:
        """Put the keys and values of the source `tokens` [length] into a slot. Raises PromptTooLong."""
        if len(tokens) > self.graph.context_length:
            raise PromptTooLong(
                f"{len(tokens)} tokens do not fit the source of {self.graph.context_length}; send fewer"
            )
        self.release(slot)
        outputs = self._session.run(None, {SOURCE_IDS: np.asarray(tokens, np.int64)[None]})
        self.cache.grow(slice(slot, slot + 1), len(tokens))
        for buffer, values in zip(self.cache.buffers, outputs, strict=True):
            buffer[slot, :, : len(tokens)] = values[0]

    def tensors(self, first: int, count: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """What a call over some slots is bound to: its inputs, and the outputs that are the same memory."""
        rows, layers = self.cache.rows(first, count), len(self.graph.layers)
        inputs = {
            SOURCE_SEQLENS_K: self._seqlens_k[first : first + count],
            SOURCE_TOTAL_LENGTH: self._total,
            **dict(zip(source_names(layers, "past"), rows, strict=True)),
        }
        return inputs, dict(zip(source_names(layers, "present"), rows, strict=True))

    def select(self, first: int, count: int) -> None:
        """Say which slots the next call is over."""
        lengths = self.cache.lengths[first : first + count]
        self._seqlens_k[first : first + count] = lengths - 1
        self._total[...] = lengths.max()

    def move(self, source: int, target: int) -> None:
        """Copy a slot's source over another's."""
        self.cache.copy(source, target)

    def swap(self, one: int, other: int) -> None:
        """Exchange two slots."""
        self.cache.swap(one, other)

    def release(self, slot: int) -> None:
        """Forget a slot's source."""
        self.cache.lengths[slot] = 0
