"""Work that ends when its client does."""

import asyncio
from contextlib import suppress

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


def test_who_cancels_the_caller_cancels_the_work():
    async def main() -> None:
        task = asyncio.create_task(while_connected(never, never()))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


@pytest.mark.parametrize("turns", range(5))
def test_a_client_that_goes_about_when_the_work_is_done_cancels_nothing_else(turns: int):
    async def main() -> None:
        left = asyncio.Event()

        async def gone_then() -> dict[str, str]:
            await left.wait()
            return {"type": "http.disconnect"}

        async def work() -> None:
            asyncio.get_running_loop().call_soon(left.set)
            for _ in range(turns):
                await asyncio.sleep(0)

        with suppress(ClientDisconnect):
            await while_connected(gone_then, work())
        # Nothing comes afterwards.
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
