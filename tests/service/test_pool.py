"""The threads in front of feed-forward models."""

import asyncio
from threading import Event

import pytest

from service.errors import TooBusy
from service.pool import Pool


def test_a_full_queue_refuses_and_recovers():
    async def main() -> None:
        pool, release = Pool(threads=1, queue=1), Event()
        tasks = [asyncio.create_task(pool.run(release.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooBusy, match="try again"):
            await pool.run(int)
        release.set()
        assert await asyncio.gather(*tasks) == [True, True]
        assert await pool.run(int, "7") == 7
        pool.close()

    asyncio.run(main())


def test_what_is_cancelled_while_it_waits_is_never_run():
    async def main() -> None:
        pool, release, ran = Pool(threads=1, queue=1), Event(), Event()
        running = asyncio.create_task(pool.run(release.wait))
        waiting = asyncio.create_task(pool.run(ran.set))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        release.set()
        await running
        await pool.run(int)
        assert not ran.is_set()
        pool.close()

    asyncio.run(main())
