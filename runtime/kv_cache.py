"""Key and value buffers for a fixed number of slots, whose memory comes as their sequences grow.

Slot `i` is row `i` of one buffer per layer, each row long enough for the whole context. That is address
space, not memory: the operating system hands out a page when it is first written, so the rows together take
what their tokens need, with no page table of ours and no indirection in the kernels. `trim` gives pages back.
It knows nothing of graphs or requests. The trade-off: memory counts in pages of each head's row (16 tokens
of 64 float32 values), and a platform without `madvise` keeps what it has touched.
"""

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from runtime.manifest import DecoderGraph, EncoderGraph
from runtime.processing import Array

_GIVES_BACK = all(hasattr(mmap, name) for name in ("MADV_DONTNEED", "MAP_PRIVATE", "MAP_ANONYMOUS"))


def bytes_per_token(graph: DecoderGraph | EncoderGraph) -> int:
    """What one token takes in the keys and values of all layers."""
    values = sum(2 * layer.heads * layer.head_dim for layer in graph.layers)
    return values * np.dtype(graph.kv_dtype).itemsize


class KVCache:
    """Rows of keys and values. `lengths` [slots] counts the tokens that each row holds.

    `tokens` is how many all rows together may hold (default: all that there is room for); keeping to it is
    the caller's part, and then the memory in use stays within it too.
    """

    def __init__(self, graph: DecoderGraph | EncoderGraph, slots: int, tokens: int | None = None) -> None:
        room = slots * graph.context_length
        self.tokens = room if tokens is None else min(tokens, room)
        self.lengths = np.zeros(slots, np.int64)
        # How far each row's memory has been touched since it was last given back.
        self._touched = np.zeros(slots, np.int64)
        shapes = [(slots, layer.heads, graph.context_length, layer.head_dim) for layer in graph.layers]
        made = [reserve(shape, np.dtype(graph.kv_dtype)) for shape in shapes for _ in "kv"]
        self.buffers = [buffer for buffer, _ in made]
        self._maps = [memory for _, memory in made]

    def rows(self, first: int, count: int) -> list[Array]:
        """Views of some slots' rows, for keys and values of each layer in turn."""
        return [buffer[first : first + count] for buffer in self.buffers]

    def grow(self, slots: slice, count: int) -> None:
        """Note that these rows are about to get `count` more tokens each."""
        self.lengths[slots] += count
        np.maximum(self._touched, self.lengths, out=self._touched)
        if self._touched.sum() > self.tokens:
            self.trim()

    def copy(self, source: int, target: int) -> None:
        """Copy a row over another."""
        length = int(self.lengths[source])
        self.lengths[target] = 0
        self.grow(slice(target, target + 1), length)
        for buffer in self.buffers:
            buffer[target, :, :length] = buffer[source, :, :length]

    def swap(self, one: int, other: int) -> None:
        """Exchange two rows. Takes as long as copying the longer one."""
        shorter, longer = (one, other) if self.lengths[one] <= self.lengths[other] else (other, one)
        few, many = self.lengths[[shorter, longer]].tolist()
        for buffer in self.buffers:
            kept = buffer[shorter, :, :few].copy()
            buffer[shorter, :, :many] = buffer[longer, :, :many]
            buffer[longer, :, :few] = kept
        self.lengths[[one, other]] = self.lengths[[other, one]]
        self.grow(slice(0, 0), 0)

    def read(self, slot: int, start: int, stop: int, out: Array | None = None) -> Array:
        """The keys and values of some of a row's tokens, copied into one flat array: `out`, or a new one."""
        return np.concatenate([buffer[slot, :, start:stop].ravel() for buffer in self.buffers], out=out)

    def append(self, slot: int, blocks: Sequence[Array], tokens: int) -> None:
        """Add blocks of `tokens` tokens each, as `read` gave them, to the end of a row."""
        start = int(self.lengths[slot])
        self.grow(slice(slot, slot + 1), len(blocks) * tokens)
        for number, block in enumerate(blocks):
            first, offset = start + number * tokens, 0
            for buffer in self.buffers:
                place = buffer[slot, :, first : first + tokens]
                place[...] = block[offset : offset + place.size].reshape(place.shape)
                offset += place.size

    def trim(self) -> None:
        """Give the memory behind every row's last token back to the operating system."""
        for slot in np.flatnonzero(self._touched > self.lengths):
            for buffer, memory in zip(self.buffers, self._maps, strict=True):
                if memory is not None:
                    _give_back(memory, buffer, int(slot), int(self.lengths[slot]), int(self._touched[slot]))
            self._touched[slot] = self.lengths[slot]


def reserve(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> tuple[Array, mmap.mmap | None]:
    """Zeros that take memory page by page as they are written, and their mapping.

    All of it goes back to the operating system with the array. None, and memory at once, where it cannot.
    """
    if not _GIVES_BACK:
        return np.zeros(shape, dtype), None
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A huge page would hand out 2 MiB for the first token of a head.
    with suppress(AttributeError, OSError):  # a kernel without huge pages has none to refuse
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape), memory


def _give_back(memory: mmap.mmap, buffer: Array, slot: int, start: int, stop: int) -> None:
    """Return the whole pages within tokens `start` to `stop` of each head of a row."""
    _, heads, capacity, dim = buffer.shape
    token = dim * buffer.itemsize
    for head in range(slot * heads, (slot + 1) * heads):
        first = -(-(head * capacity + start) * token // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (head * capacity + stop) * token // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            memory.madvise(mmap.MADV_DONTNEED, first, last - first)
