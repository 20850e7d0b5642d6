"""Batches on single cores, beside those on all of them: times are virtual."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.bundle import Bundle
from runtime.tensor import TensorModel
from service.batcher import IN_FLIGHT, Batcher
from service.cost import CostModel
from service.lanes import Lanes, Way
from service.pool import Pool
from service.served import _open_narrow, open_lanes
from service.traffic import Traffic
from service.waiting import Job
from tests.service.clock import run_virtually

CORES = 2
FULL = 16
# Seconds of a core for a row; and of all cores, before and after what they share of a batch.
ROW, ALONE = 0.001, 0.004


@pytest.fixture(scope="module")
def model(bundles: Path) -> TensorModel:
    return TensorModel(Bundle.open(bundles / "digits"), threads=CORES)


def seconds(rows: int, cores: int) -> float:
    """What a batch takes: a part of it only one core can do."""
    return ALONE + ROW * rows / cores


class Machine:
    """Cores that each run one batch at a time in virtual time, or all of them one. Notes who runs when."""

    def __init__(self, model: TensorModel) -> None:
        self.model = model
        self.cores = asyncio.Semaphore(CORES)
        self.all = asyncio.Lock()
        self.batches: list[tuple[int, int]] = []
        self.given = self.most_given = 0

    def lanes(self) -> Lanes:
        ways = [Way(self.model, CostModel(), cores) for cores in (CORES, 1)]
        for way in ways:
            for power in range(5):
                way.cost.observe(2**power, 1, seconds(2**power, way.cores))
        # Where each row costs as much, the largest measured one is the best.
        ways[1].cost.settle(1)
        assert ways[1].cost.best_rows() == FULL
        return Lanes(*ways)

    async def __call__(self, jobs: list[Job], way: Way) -> tuple[dict[str, np.ndarray], float]:
        rows = sum(job.rows for job in jobs)
        self.batches.append((rows, way.cores))
        self.given += way.cores
        self.most_given = max(self.most_given, self.given)
        async with self.all:
            for _ in range(way.cores):
                await self.cores.acquire()
        took = seconds(rows, way.cores)
        await asyncio.sleep(took)
        for _ in range(way.cores):
            self.cores.release()
        self.given -= way.cores
        pixels = np.concatenate([job.inputs["pixels"] for job in jobs])
        return {"logits": pixels.reshape(rows, -1)[:, :1]}, took


def virtual(model: TensorModel, test: Callable[[Batcher, Machine], Awaitable[None]]) -> None:
    async def main() -> None:
        machine, pool = Machine(model), Pool(1, 1)
        batcher = Batcher(model, pool, Traffic(), lanes=machine.lanes(), execute=machine)
        await test(batcher, machine)
        assert machine.most_given <= IN_FLIGHT * CORES
        await batcher.stop()
        pool.close()

    run_virtually(main())


def image(value: float, rows: int = 1) -> dict[str, np.ndarray]:
    return {"pixels": np.full((rows, 1, 8, 8), value, np.float32)}


async def ask(batcher: Batcher, clients: int, times: int) -> float:
    """Rows a second that so many clients get, each waiting for its answers, which must be its own."""
    loop = asyncio.get_running_loop()

    async def client(number: int) -> None:
        for _ in range(times):
            answer = await batcher.run(image(number / clients))
            assert answer["logits"] == pytest.approx(number / clients)

    began = loop.time()
    await asyncio.gather(*map(client, range(clients)))
    return clients * times / (loop.time() - began)


def test_with_rows_enough_for_all_each_core_has_batches_of_its_own(model: TensorModel) -> None:
    async def test(batcher: Batcher, machine: Machine) -> None:
        rate = await ask(batcher, 2 * CORES * FULL, 50)
        assert rate >= 0.95 * CORES * FULL / seconds(FULL, 1)
        assert machine.batches.count((FULL, 1)) >= 0.9 * len(machine.batches)

    virtual(model, test)


def test_with_fewer_all_cores_run_one_batch(model: TensorModel) -> None:
    async def test(batcher: Batcher, machine: Machine) -> None:
        await ask(batcher, FULL, 10)
        assert {cores for _, cores in machine.batches} == {CORES}

    virtual(model, test)


def test_after_the_load_one_alone_has_all_cores_again(model: TensorModel) -> None:
    async def test(batcher: Batcher, machine: Machine) -> None:
        await ask(batcher, 100, 5)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await batcher.run(image(1))
        assert loop.time() - began == pytest.approx(seconds(1, CORES))
        assert machine.batches[-1] == (1, CORES)

    virtual(model, test)


def test_while_a_core_has_nothing_to_do_nobody_waits(model: TensorModel) -> None:
    async def test(batcher: Batcher, machine: Machine) -> None:
        # One batch for each core, and one more than there is room for beside them.
        asked = [asyncio.create_task(batcher.run(image(0))) for _ in range(CORES * FULL + 1)]
        await asyncio.sleep(0.9 * seconds(FULL, 1))
        assert [cores for _, cores in machine.batches] == [1] * CORES
        await asyncio.gather(*asked)
        assert machine.batches[CORES:] == [(1, CORES)]

    virtual(model, test)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2 * FULL), st.floats(0, 0.02)), min_size=1, max_size=60))
def test_whatever_comes_is_answered_and_never_more_in_flight_than_there_is_room_for(
    model: TensorModel, arrivals: list[tuple[int, float]]
) -> None:
    async def test(batcher: Batcher, machine: Machine) -> None:
        tasks: list[asyncio.Task[Any]] = []
        for rows, pause in arrivals:
            tasks.append(asyncio.create_task(batcher.run(image(rows / 100, rows))))
            await asyncio.sleep(pause)
        for (rows, _), answer in zip(arrivals, await asyncio.gather(*tasks), strict=True):
            assert answer["logits"] == pytest.approx(np.full((rows, 1), rows / 100))
        assert sum(rows for rows, _ in machine.batches) == sum(rows for rows, _ in arrivals)

    virtual(model, test)


def test_on_one_thread_it_answers_alike(model: TensorModel) -> None:
    narrow = _open_narrow(model, 1)
    assert narrow is not None
    assert (narrow.cores, narrow.model.cores) == (1, 1)
    rows = {"pixels": np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, 1, 8, 8)}
    np.testing.assert_allclose(narrow.model.run(rows)["logits"], model.run(rows)["logits"], rtol=1e-4)


def test_a_model_for_one_core_is_opened_once(bundles: Path) -> None:
    lanes = open_lanes(TensorModel(Bundle.open(bundles / "digits"), threads=1))
    assert (lanes.narrow, lanes.wide.cores) == (None, 1)
