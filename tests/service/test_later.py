"""What is put off to the end of the loop's turn is done once, before anything that comes later."""

import asyncio

from service.later import Later
from tests.service.clock import run_virtually


def test_all_of_a_turn_is_handled_together_and_before_what_comes_next():
    done: list[object] = []
    later = Later(lambda things: done.append(list(things)))

    async def main() -> None:
        later.add(1)
        later.add(2)
        assert done == []
        asyncio.get_running_loop().call_soon(done.append, "next")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        later.add(3)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert done == [[1, 2], "next", [3]]


def test_what_a_while_brings_is_handled_together():
    done: list[object] = []
    later = Later(lambda things: done.append(list(things)), seconds=0.01)

    async def main() -> None:
        later.add(1)
        await asyncio.sleep(0.005)
        later.add(2)
        assert done == []
        await asyncio.sleep(0.02)

    run_virtually(main())
    assert done == [[1, 2]]


def test_a_loop_that_ended_too_soon_keeps_nobody_from_being_heard():
    done: list[int] = []
    later = Later(done.extend)
    first = asyncio.new_event_loop()

    async def add(thing: int) -> None:
        later.add(thing)

    # Its task ends the loop before the turn after it.
    first.run_until_complete(add(1))
    first.close()
    asyncio.run(add(2))
    assert done[-1] == 2
