"""Dynamic batching: rows a second at saturation beside the best batch offline, and one client's latency.

With as many clients as a batch has rows, nobody waits while one runs, and then the model waits for all of
them to ask again; with several times as many, the next batch is there. The batcher runs on uvloop, as it does
in the service. A machine that is shared goes at another pace every few seconds: offline and batcher take
turns, and the median of their ratios counts.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import uvloop
from serving_report import say

from runtime.bundle import Bundle
from runtime.processing import Array
from runtime.tensor import TensorModel
from service.batcher import Batcher
from service.pool import Pool
from service.served import made_up, serve
from service.settings import Settings
from service.traffic import Traffic

ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
CLIENTS = (64, 256)
LENGTH = 32


def batching(folder: Path, seconds: float, rounds: int = 5) -> None:
    """Both ratios, of the batcher in this process: what HTTP costs is measured elsewhere."""
    model = TensorModel(Bundle.open(folder))
    row = made_up(model.manifest, 1, LENGTH)
    best = max(ROWS, key=lambda rows: _offline(model, rows, seconds / 4))
    alone = _alone(model, row)
    turns, latency = uvloop.run(_batched(model, row, best, seconds, rounds))
    tag = model.manifest.tag
    for clients, pairs in turns.items():
        offline, rate = sorted(pairs, key=lambda pair: pair[1] / pair[0])[rounds // 2]
        ratios = " ".join(f"{ours / theirs:.2f}" for theirs, ours in pairs)
        say(
            f"batching      {tag}: offline {offline:.0f} rows/s in batches of {best}   "
            f"batcher {rate:.0f} rows/s   ratio {rate / offline:.2f} (bar 0.85), {clients} clients, "
            f"the median of {ratios}"
        )
    say(
        f"one client    {tag}: model {1000 * alone:.3f} ms   batcher {1000 * latency:.3f} ms   "
        f"ratio {latency / alone:.2f} (bar 1.3)"
    )


def _offline(model: TensorModel, rows: int, seconds: float) -> float:
    inputs, count = made_up(model.manifest, rows, LENGTH), 0
    model.run(inputs)
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        model.run(inputs)
        count += rows
    return count / (time.perf_counter() - started)


def _alone(model: TensorModel, row: Mapping[str, Array]) -> float:
    return _median([_timed(model, row) for _ in range(200)])


def _timed(model: TensorModel, row: Mapping[str, Array]) -> float:
    started = time.perf_counter()
    model.run(row)
    return time.perf_counter() - started


async def _batched(
    model: TensorModel, row: Mapping[str, Array], best: int, seconds: float, rounds: int
) -> tuple[dict[int, list[tuple[float, float]]], float]:
    """Rows a second offline and batched, in turns, for each number of clients; and one client's latency."""
    pool, traffic = Pool(1, 1), Traffic()
    batcher = serve(model, pool, traffic, Settings())
    assert isinstance(batcher, Batcher)
    # Largest batches are found under load: a moment to learn.
    for clients in CLIENTS:
        await _saturated(batcher, row, seconds / 2, clients)
    turns: dict[int, list[tuple[float, float]]] = {clients: [] for clients in CLIENTS}
    for _ in range(rounds):
        for clients, pairs in turns.items():
            offline = _offline(model, best, seconds / 2)
            pairs.append((offline, await _saturated(batcher, row, seconds / 2, clients)))
    times = []
    for _ in range(200):
        started = time.perf_counter()
        await batcher.run(row)
        times.append(time.perf_counter() - started)
    await batcher.stop()
    pool.close()
    return turns, _median(times)


async def _saturated(batcher: Batcher, row: Mapping[str, Array], seconds: float, clients: int) -> float:
    count, started = 0, time.perf_counter()

    async def client() -> None:
        nonlocal count
        while time.perf_counter() < started + seconds:
            await batcher.run(row)
            count += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return count / (time.perf_counter() - started)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
