"""Requests in flight: what is waited for, and what is refused."""

import asyncio

import pytest

from service.errors import Draining
from service.traffic import Traffic


def test_settled_waits_for_the_requests_of_then_and_not_for_later_ones():
    async def main() -> None:
        traffic = Traffic()
        first, second = traffic.enter(), traffic.enter()
        settled = asyncio.create_task(traffic.settled())
        await asyncio.sleep(0)
        later = traffic.enter()
        traffic.leave(first)
        await asyncio.sleep(0)
        assert not settled.done()
        traffic.leave(second)
        await settled
        assert len(traffic) == 1
        traffic.leave(later)
        await traffic.settled()

    asyncio.run(main())


def test_nothing_new_is_taken_while_it_drains():
    traffic = Traffic()
    traffic.draining = True
    with pytest.raises(Draining):
        traffic.enter()
