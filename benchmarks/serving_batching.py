"""Dynamic batching: rows a second at saturation beside the best batch offline, and one client's latency.

With as many clients as a batch has rows, nobody waits while one runs, and then the model waits for all of
them to ask again; with several times as many, the next batch is there. The batcher runs on uvloop, as it does
in the service. A machine that is shared goes at another pace every few seconds: offline and batcher take
turns, and the median of their ratios counts. Offline is all cores running one batch at a time and, where the
service would do that as well, each core one of its own.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Offline:
    """Models that run side by side offline, each a batch of `rows` after another."""

    models: Sequence[TensorModel]
    rows: int


def batching(folder: Path, seconds: float, rounds: int = 5) -> None:
    """Both ratios, of the batcher in this process: what HTTP costs is measured elsewhere."""
    model = TensorModel(Bundle.open(folder))
    row = made_up(model.manifest, 1, LENGTH)
    pool = Pool(1, 1)
    batcher = serve(model, pool, Traffic(), Settings())
    assert isinstance(batcher, Batcher)
    ways, narrow = [_best([model], seconds / 4)], batcher.lanes.narrow
    if narrow:
        ways.append(_best([narrow.model] * batcher.lanes.wide.cores, seconds / 4))
    alone = _alone(model, row)
    turns, latency = uvloop.run(_batched(batcher, row, ways, seconds, rounds))
    pool.close()
    for clients, rates in turns.items():
        _report(model.manifest.tag, ways, clients, rates)
    say(
        f"one client    {model.manifest.tag}: model {1000 * alone:.3f} ms   "
        f"batcher {1000 * latency:.3f} ms   ratio {latency / alone:.2f} (bar 1.3)"
    )


def _report(
    tag: str, ways: Sequence[Offline], clients: int, turns: Sequence[tuple[list[float], float]]
) -> None:
    """`turns` are rows a second offline, in each of the ways, and of the batcher."""
    say(f"batching      {tag}: {clients} clients, {_median([rate for _, rate in turns]):.0f} rows/s")
    for index, way in enumerate(ways):
        offline = _median([rates[index] for rates, _ in turns])
        ratios = [rate / rates[index] for rates, rate in turns]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        say(
            f"                  offline {offline:.0f} rows/s in {len(way.models)} x {way.rows} rows   "
            f"ratio {_median(ratios):.2f} (bar 0.85), the median of {each}"
        )


def _best(models: Sequence[TensorModel], seconds: float) -> Offline:
    return max((Offline(models, rows) for rows in ROWS), key=lambda way: _offline(way, seconds))


def _offline(way: Offline, seconds: float) -> float:
    """Rows a second, of threads that each run a model."""
    inputs = made_up(way.models[0].manifest, way.rows, LENGTH)
    way.models[0].run(inputs)
    started = time.perf_counter()

    def run(model: TensorModel) -> int:
        count = 0
        while time.perf_counter() < started + seconds:
            model.run(inputs)
            count += way.rows
        return count

    with ThreadPoolExecutor(len(way.models)) as threads:
        count = sum(threads.map(run, way.models))
    return count / (time.perf_counter() - started)


def _alone(model: TensorModel, row: Mapping[str, Array]) -> float:
    return _median([_timed(model, row) for _ in range(200)])


def _timed(model: TensorModel, row: Mapping[str, Array]) -> float:
    started = time.perf_counter()
    model.run(row)
    return time.perf_counter() - started


async def _batched(
    batcher: Batcher,
    row: Mapping[str, Array],
    ways: Sequence[Offline],
    seconds: float,
    rounds: int,
) -> tuple[dict[int, list[tuple[list[float], float]]], float]:
    """Rows a second offline and batched, in turns, for each number of clients; and one client's latency."""
    # Largest batches are found under load: a moment to learn.
    for clients in CLIENTS:
        await _saturated(batcher, row, seconds / 2, clients)
    turns: dict[int, list[tuple[list[float], float]]] = {clients: [] for clients in CLIENTS}
    for _ in range(rounds):
        for clients, pairs in turns.items():
            offline = [_offline(way, seconds / 2) for way in ways]
            pairs.append((offline, await _saturated(batcher, row, seconds / 2, clients)))
    times = []
    for _ in range(200):
        started = time.perf_counter()
        await batcher.run(row)
        times.append(time.perf_counter() - started)
    await batcher.stop()
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
