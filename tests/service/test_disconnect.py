"""Work that ends when its client does."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from service.disconnect import while_connected


async def never() -> dict[str, str]:
    await asyncio.Event().wait()
    raise AssertionError


async def gone() -> dict[str, str]:
    return {"type": "http.disconnect"}


def test_the_result_comes_through():
    async def work() -> int:
        return 7

    assert asyncio.run(while_connected(never, work())) == 7


def test_an_error_comes_through():
    async def work() -> int:
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(while_connected(never, work()))


def test_the_work_is_cancelled_when_the_client_hangs_up():
    ended = []

    async def work() -> None:
        try:
            await never()
        finally:
            ended.append(True)

    with pytest.raises(ClientDisconnect):
        asyncio.run(while_connected(gone, work()))
    assert ended
