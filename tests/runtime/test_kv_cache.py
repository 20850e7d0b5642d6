import subprocess
import sys

import numpy as np
import pytest

from runtime.kv_cache import KVCache, bytes_per_token
from runtime.manifest import DecoderGraph, KVLayer

# Layers of different shapes, as pruning leaves them.
GRAPH = DecoderGraph(
    layers=(KVLayer(heads=2, head_dim=64), KVLayer(heads=1, head_dim=24)), vocab_size=8, context_length=256
)


def fill(cache: KVCache, slot: int, count: int, seed: int) -> np.ndarray:
    """Random keys and values in a row; a copy of them."""
    rng = np.random.default_rng(seed)
    cache.grow(slice(slot, slot + 1), count)
    for buffer in cache.buffers:
        buffer[slot, :, :count] = rng.normal(size=buffer[slot, :, :count].shape)
    return cache.read(slot, 0, count)


def test_a_tokens_size_is_that_of_its_keys_and_values() -> None:
    assert bytes_per_token(GRAPH) == 2 * (2 * 64 + 24) * 4
    cache = KVCache(GRAPH, 2)
    assert cache.read(0, 0, 1).nbytes == bytes_per_token(GRAPH)


def test_rows_are_copied_and_exchanged_with_their_lengths() -> None:
    cache = KVCache(GRAPH, 3)
    one, two = fill(cache, 0, 40, 1), fill(cache, 1, 90, 2)
    cache.swap(0, 1)
    assert cache.lengths.tolist() == [90, 40, 0]
    np.testing.assert_array_equal(cache.read(0, 0, 90), two)
    cache.copy(1, 2)
    np.testing.assert_array_equal(cache.read(2, 0, 40), one)
    assert cache.lengths.tolist() == [90, 40, 40]


def test_blocks_are_read_from_one_row_and_appended_to_another() -> None:
    cache = KVCache(GRAPH, 2)
    whole = fill(cache, 0, 48, 3)
    fill(cache, 1, 16, 3)
    first = cache.read(0, 0, 16)
    cache.append(1, [cache.read(0, 16, 32), cache.read(0, 32, 48)], 16)
    assert cache.lengths.tolist() == [48, 48]
    np.testing.assert_array_equal(cache.read(1, 16, 48), cache.read(0, 16, 48))
    np.testing.assert_array_equal(cache.read(0, 0, 48), whole)
    assert len(first) * 3 == len(whole)


@pytest.mark.parametrize("kept", [0, 1, 17, 200])
def test_trimming_keeps_every_rows_tokens(kept: int) -> None:
    cache = KVCache(GRAPH, 3)
    before = [fill(cache, slot, 200, slot) for slot in range(3)]
    cache.lengths[1] = kept
    wanted = cache.read(1, 0, kept)
    cache.trim()
    np.testing.assert_array_equal(cache.read(0, 0, 200), before[0])
    np.testing.assert_array_equal(cache.read(1, 0, kept), wanted)
    np.testing.assert_array_equal(cache.read(2, 0, 200), before[2])


RESIDENT = """
import numpy as np
from runtime.kv_cache import KVCache, bytes_per_token
from runtime.manifest import DecoderGraph, KVLayer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

graph = DecoderGraph(layers=(KVLayer(heads=8, head_dim=64),) * 2, vocab_size=8, context_length=16_384)
start = resident()
cache = KVCache(graph, 16, tokens=3000)
assert sum(buffer.nbytes for buffer in cache.buffers) > 1e9
token, most = bytes_per_token(graph), 0
# One row after another is long for a while, as requests come and go: only one at a time.
for slot in range(16):
    cache.grow(slice(slot, slot + 1), 2500)
    for buffer in cache.buffers:
        buffer[slot, :, :2500] = slot
    most = max(most, resident() - start)
    cache.lengths[slot] = 0
cache.trim()
print(most / token, (resident() - start) / token)
"""


def test_memory_comes_with_the_tokens_and_goes_again() -> None:
    """16 rows of 16,384 places are 1 GB of address space; the process grows by what is written.

    In a process of its own: what other tests have left behind is given back at any time.
    """
    done = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    most, left = map(float, done.stdout.split())
    assert 2500 <= most < 3 * 3000
    assert left < 1000
