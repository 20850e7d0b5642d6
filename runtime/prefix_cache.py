"""Prompt prefixes that several requests share, computed once.

Tokens are cut into blocks of 16. A block's key is a hash over everything before and in it, so a key stands
for a whole prefix, and a request finds the longest one it shares by looking up one key after another. Blocks
are copies, kept beside the rows: copying one in takes about a hundredth of the time of computing it, and
nothing refers to a running sequence's slot. They lie in memory of their own, page by page as it is written:
in the C library's, where others allocate too, what is forgotten would stay the process's. It decides nothing
about requests.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from runtime.kv_cache import KVCache, reserve
from runtime.processing import Array

BLOCK_TOKENS = 16

Key = bytes


class PrefixKeys:
    """The keys of one growing token sequence. Different `scope`s (tenant, adapter) have no key in common."""

    def __init__(self, *scope: str | None) -> None:
        self._root = hashlib.sha256(repr(scope).encode()).digest()
        self._keys: list[Key] = []

    def of(self, tokens: Sequence[int], count: int) -> list[Key]:
        """The keys of the whole blocks in the first `count` tokens."""
        blocks = count // BLOCK_TOKENS
        while len(self._keys) < blocks:
            start = len(self._keys) * BLOCK_TOKENS
            block = np.asarray(tokens[start : start + BLOCK_TOKENS], np.int64)
            parent = self._keys[-1] if self._keys else self._root
            self._keys.append(hashlib.sha256(parent + block.tobytes()).digest())
        return self._keys[:blocks]


class PrefixCache:
    """Blocks by key within `budget` bytes; those not used for longest go first. One cache's rows only."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        # Room for every block, [blocks, values], made with the first one, whose size is every other's.
        self._room: Array | None = None
        self._places: OrderedDict[Key, int] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What the blocks take."""
        blocks = len(self._places)
        return 0 if self._room is None else self._room[:blocks].nbytes

    def load(self, cache: KVCache, slot: int, keys: Sequence[Key]) -> int:
        """Extend a row by the blocks that follow in `keys` and are here; how many tokens that adds.

        A row that ends within a block gets nothing.
        """
        length = int(cache.lengths[slot])
        if length % BLOCK_TOKENS:
            return 0
        blocks = []
        for key in keys[length // BLOCK_TOKENS :]:
            if self._room is None or key not in self._places:
                break
            blocks.append(self._room[self._places[key]])
        if blocks:
            cache.append(slot, blocks, BLOCK_TOKENS)
            self._touch(keys[: length // BLOCK_TOKENS + len(blocks)])
        return len(blocks) * BLOCK_TOKENS

    def save(self, cache: KVCache, slot: int, keys: Sequence[Key]) -> None:
        """Keep the blocks of a row that are not here yet; `keys` are those of its first tokens."""
        if self._room is None:
            self._room = self._make_room(cache)
        # A prefix is useful from its first block on, so of one that is too long the end is not kept.
        keys = keys[: len(self._room)]
        self._touch(keys)
        for number, key in enumerate(keys):
            if key not in self._places:
                start = number * BLOCK_TOKENS
                self._places[key] = place = self._place(len(self._room))
                cache.read(slot, start, start + BLOCK_TOKENS, self._room[place])
        self._touch(keys)

    def clear(self) -> None:
        """Forget everything, for instance when an adapter was replaced."""
        self._places.clear()
        self._room = None

    def _make_room(self, cache: KVCache) -> Array:
        values = sum(buffer[0, :, :BLOCK_TOKENS].size for buffer in cache.buffers)
        dtype = cache.buffers[0].dtype
        blocks = self._budget // (values * dtype.itemsize)
        return reserve((blocks, values), dtype)[0] if blocks else np.empty((0, values), dtype)

    def _place(self, blocks: int) -> int:
        """Where a block goes: the first place never used, else that of the one not used for longest."""
        used = len(self._places)
        return used if used < blocks else self._places.popitem(last=False)[1]

    def _touch(self, keys: Sequence[Key]) -> None:
        # A block is useless without those before it, so the first ones are the last to go.
        for key in reversed(keys):
            if key in self._places:
                self._places.move_to_end(key)
