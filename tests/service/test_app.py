"""The mounted app over models that misbehave, or that are busy."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.bundle import Bundle
from runtime.model import TextModel, load_model
from runtime.scheduler import Scheduler, TokenEvent
from service.app import create_app
from service.catalog import Catalog
from service.middleware.request_id import RequestIdMiddleware
from service.settings import Settings

COMPLETION = {"model": "chatter-tiny", "prompt": "a", "max_tokens": 50}


@pytest.fixture(scope="module")
def model(bundles: Path) -> TextModel:
    return load_model(Bundle.open(bundles / "chatter"))


class Failing:
    """A text model, and its one scheduler, that raises at its third step."""

    def __init__(self, model: TextModel) -> None:
        self.steps, self._model = 0, model

    def scheduler(self, slots: int, **options: Any) -> "Failing":
        self._scheduler: Scheduler = self._model.scheduler(slots, **options)
        return self

    def step(self) -> list[TokenEvent]:
        self.steps += 1
        if self.steps == 3:
            raise RuntimeError("secret")
        return self._scheduler.step()

    def __getattr__(self, name: str) -> object:
        return getattr(self._model if hasattr(self._model, name) else self._scheduler, name)


def run(model: object, test: Callable[[httpx.AsyncClient], Awaitable[None]], **settings: int) -> None:
    app = create_app(lambda: Catalog([model], Settings(**settings)))

    async def main() -> None:
        transport = httpx.ASGITransport(RequestIdMiddleware(app))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            await asyncio.wait_for(test(client), 120)

    asyncio.run(main())


def test_a_stream_that_breaks_says_so_in_the_stream(model):
    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/completions", json=COMPLETION | {"stream": True})
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        # What was said before is said; tokens that come together are one event.
        *said, error, done = events
        assert 1 <= len(said) <= 2
        assert json.loads(error)["error"]["code"] == "model_failed"
        assert "secret" not in answer.text
        assert done == "[DONE]"

    run(Failing(model), test)


def test_an_answer_that_breaks_is_a_500_with_the_request_id(model):
    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/completions", json=COMPLETION, headers={"X-Request-ID": "r7"})
        assert answer.status_code == 500
        assert "r7" in answer.json()["error"]["message"]
        assert (await client.post("/v1/completions", json=COMPLETION)).status_code == 200

    run(Failing(model), test)


def test_one_too_many_is_refused_at_once_and_told_when_to_come_back(model):
    async def test(client: httpx.AsyncClient) -> None:
        long = COMPLETION | {"max_tokens": 1000}
        answers = await asyncio.gather(*(client.post("/v1/completions", json=long) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert busy.headers["Retry-After"] == "1"
        assert busy.json()["error"]["code"] == "too_busy"

    run(model, test, slots=1, queue=1)


def test_readiness_is_false_while_an_engine_is_out_of_order(model):
    class Homeless(Failing):
        def scheduler(self, slots: int, **options: Any) -> "Failing":
            raise MemoryError

    async def test(client: httpx.AsyncClient) -> None:
        while (answer := await client.get("/v2/health/ready")).status_code == 200:
            await asyncio.sleep(0.01)
        assert (answer.status_code, answer.json()) == (503, {"ready": False})
        assert (await client.get("/health")).status_code == 503
        assert (await client.post("/v1/completions", json=COMPLETION)).status_code == 500

    run(Homeless(model), test)
