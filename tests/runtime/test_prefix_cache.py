import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from runtime.kv_cache import KVCache
from runtime.manifest import DecoderGraph, KVLayer
from runtime.prefix_cache import BLOCK_TOKENS, PrefixCache, PrefixKeys

GRAPH = DecoderGraph(layers=(KVLayer(heads=1, head_dim=4),), vocab_size=99, context_length=128)
BLOCK_BYTES = BLOCK_TOKENS * 2 * 4 * 4
TOKENS = list(range(99))


@pytest.fixture
def row() -> KVCache:
    """A row of 80 tokens, five blocks, and an empty one."""
    cache = KVCache(GRAPH, 2)
    cache.grow(slice(1), 80)
    for buffer in cache.buffers:
        buffer[0] = np.random.default_rng(0).normal(size=buffer[0].shape)
    return cache


def keys(count: int = 80, *scope: str) -> list[bytes]:
    return PrefixKeys(*scope).of(TOKENS, count)


def test_a_key_stands_for_everything_before_it() -> None:
    assert len(keys(80)) == 5
    assert len(keys(79)) == 4
    assert keys(48) == keys(80)[:3]
    changed = PrefixKeys().of([5, *TOKENS[1:]], 80)
    assert not set(changed) & set(keys(80))
    assert not set(keys(80, "tenant")) & set(keys(80))
    # One scope's parts do not run into another's.
    assert not set(keys(80, "ab", "c")) & set(keys(80, "a", "bc"))


def test_keys_grow_with_their_sequence() -> None:
    growing = PrefixKeys()
    assert growing.of(TOKENS[:20], 20) == keys(20)
    assert growing.of(TOKENS, 80) == keys(80)


def test_what_was_saved_is_loaded_as_far_as_it_is_shared(row: KVCache) -> None:
    cache = PrefixCache(1 << 20)
    cache.save(row, 0, keys(48))
    assert cache.load(row, 1, keys(80)) == 48
    np.testing.assert_array_equal(row.read(1, 0, 48), row.read(0, 0, 48))
    assert cache.load(row, 1, keys(80)) == 0
    cache.save(row, 0, keys(80))
    assert cache.load(row, 1, keys(80)) == 32
    np.testing.assert_array_equal(row.read(1, 0, 80), row.read(0, 0, 80))


def test_a_row_that_ends_within_a_block_gets_nothing(row: KVCache) -> None:
    cache = PrefixCache(1 << 20)
    cache.save(row, 0, keys(80))
    row.lengths[1] = 7
    assert cache.load(row, 1, keys(80)) == 0


def test_the_budget_is_kept_and_beginnings_go_last(row: KVCache) -> None:
    cache = PrefixCache(3 * BLOCK_BYTES)
    cache.save(row, 0, keys(80))
    assert cache.bytes == 3 * BLOCK_BYTES
    assert cache.load(row, 1, keys(80)) == 48


def test_what_is_there_stays_when_a_longer_prefix_is_saved(row: KVCache) -> None:
    cache = PrefixCache(3 * BLOCK_BYTES)
    cache.save(row, 0, keys(16))
    cache.save(row, 0, keys(16, "other"))
    cache.save(row, 0, keys(48))
    assert cache.load(row, 1, keys(80)) == 48
    np.testing.assert_array_equal(row.read(1, 0, 48), row.read(0, 0, 48))


def test_a_budget_below_one_block_keeps_nothing(row: KVCache) -> None:
    cache = PrefixCache(BLOCK_BYTES - 1)
    cache.save(row, 0, keys(80))
    assert (cache.load(row, 1, keys(80)), cache.bytes) == (0, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux says of memory")
def test_forgotten_blocks_give_their_memory_back() -> None:
    """In a process of its own, where nobody else allocates."""
    script = """
import numpy as np, psutil
from runtime.kv_cache import KVCache
from runtime.manifest import DecoderGraph, KVLayer
from runtime.prefix_cache import PrefixCache, PrefixKeys
graph = DecoderGraph(layers=(KVLayer(heads=8, head_dim=64),) * 4, vocab_size=9, context_length=1024)
row = KVCache(graph, 1)
row.grow(slice(1), 1024)
for buffer in row.buffers:
    buffer.fill(1)
cache, size = PrefixCache(1 << 30), psutil.Process().memory_info
before = size().rss
cache.save(row, 0, PrefixKeys().of([1] * 1024, 1024))
held = size().rss - before
cache.clear()
print(held / (16 << 20), (size().rss - before) / (16 << 20))
"""
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    held, left = map(float, found.stdout.split())
    assert held > 0.9
    assert left < 0.3


def test_what_was_used_last_stays(row: KVCache) -> None:
    cache = PrefixCache(3 * BLOCK_BYTES)
    for scope in "abc":
        cache.save(row, 0, keys(16, scope))
    cache.load(row, 1, keys(16, "a"))
    cache.save(row, 0, keys(16, "d"))
    row.lengths[1] = 0
    found = {}
    for scope in "abcd":
        found[scope] = cache.load(row, 1, keys(16, scope))
        row.lengths[1] = 0
    assert found == {"a": 16, "b": 0, "c": 16, "d": 16}


def test_a_forgotten_prefix_is_not_loaded(row: KVCache) -> None:
    cache: Any = PrefixCache(1 << 20)
    cache.save(row, 0, keys(80))
    cache.clear()
    assert (cache.load(row, 1, keys(80)), cache.bytes) == (0, 0)
