"""Who leaves the queue of a feed-forward model is not computed for; virtual time."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.requests import ClientDisconnect

from runtime.bundle import Bundle
from runtime.model import load_model
from runtime.tensor import TensorModel
from service.batcher import Batcher
from service.cost import CostModel
from service.hang_up import WATCH_SECONDS, unless_left
from service.lanes import Lanes, Way
from service.natural import Items, answer
from service.pool import Pool
from service.traffic import Traffic
from tests.service.clock import run_virtually

PIXELS = {"pixels": np.ones((1, 1, 8, 8), np.float32)}


@pytest.fixture(scope="module")
def model(bundles: Path) -> TensorModel:
    return load_model(Bundle.open(bundles / "digits"))


class Slow:
    """A model that takes a while for each batch, of one row; it counts them."""

    def __init__(self, model: TensorModel, seconds: float) -> None:
        self.model, self.seconds, self.rows = model, seconds, 0

    async def __call__(self, jobs: list, way: object) -> tuple[dict[str, np.ndarray], float]:
        self.rows += len(jobs)
        await asyncio.sleep(self.seconds)
        return self.model.run(jobs[0].inputs), self.seconds

    def batcher(self) -> Batcher:
        cost = CostModel()
        cost.observe(1, 1, self.seconds)
        cost.observe(2, 1, 4 * self.seconds)
        return Batcher(self.model, Pool(1, 1), Traffic(), lanes=Lanes(Way(self.model, cost, 1)), execute=self)


async def leaving() -> dict[str, str]:
    """What a client's connection says that hangs up after a moment."""
    await asyncio.sleep(0.001)
    return {"type": "http.disconnect"}


async def staying() -> dict[str, str]:
    await asyncio.Event().wait()
    return {}


def test_rows_of_clients_that_left_the_queue_are_never_computed(model):
    slow = Slow(model, 1.0)

    async def main() -> None:
        batcher = slow.batcher()
        running = [asyncio.create_task(batcher.run(PIXELS)) for _ in range(2)]
        await asyncio.sleep(0.1)
        left = [unless_left(leaving, batcher, batcher.run(PIXELS)) for _ in range(5)]
        left.append(answer(Pool(1, 1), batcher, Items([Image.new("L", (8, 8))]), leaving))
        stayed = asyncio.create_task(unless_left(staying, batcher, batcher.run(PIXELS)))
        outcomes = await asyncio.gather(*left, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ClientDisconnect] * 6
        await asyncio.gather(*running, stayed)
        assert slow.rows == 3
        await batcher.stop()

    run_virtually(main())


def test_where_nobody_waits_no_connection_is_watched(model):
    slow = Slow(model, WATCH_SECONDS / 4)

    async def main() -> None:
        batcher = slow.batcher()
        # It would be told of the client's leaving, had it asked.
        answers = await asyncio.gather(
            *(unless_left(leaving, batcher, batcher.run(PIXELS)) for _ in range(3))
        )
        assert len(answers) == slow.rows == 3
        await batcher.stop()

    run_virtually(main())
