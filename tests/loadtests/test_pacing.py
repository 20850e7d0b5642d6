import asyncio
import time

from loadtests.pacing import Pacer, now


async def pace(offsets, send=lambda index: None):
    calls = []

    def called(index):
        calls.append((index, now()))
        send(index)

    start = now()
    pacer = Pacer(start, offsets, called)
    await pacer.finished.wait()
    pacer.stop()
    return [(index, moment - start) for index, moment in calls]


def test_every_call_is_made_in_order_and_none_early():
    offsets = [0.0, 0.01, 0.01, 0.025, 0.05]
    calls = asyncio.run(pace(offsets))
    assert [index for index, _ in calls] == [0, 1, 2, 3, 4]
    assert all(moment >= offset for (_, moment), offset in zip(calls, offsets, strict=True))


def test_times_that_have_passed_are_called_at_once_and_later_ones_keep_their_place():
    """At once: the loop does nothing else between them. In their place: not later by the stall."""
    turns, turns_at = [], []

    def stall(index):
        turns_at.append(len(turns))
        asyncio.get_running_loop().call_soon(turns.append, index)
        if index == 0:
            time.sleep(1)

    calls = asyncio.run(pace([0.0, 0.05, 0.1, 1.1], stall))
    moments = [moment for _, moment in calls]
    assert turns_at == [0, 1, 1, 3]
    assert 1 <= moments[1] <= moments[2]
    assert 1.1 <= moments[3] < 2.1


def test_nothing_is_called_after_stopping():
    async def stop_early():
        pacer = Pacer(now(), [60.0], lambda index: None)
        pacer.stop()
        assert not pacer.finished.is_set()

    asyncio.run(stop_early())


def test_what_was_handed_over_before_stopping_is_not_called_either():
    async def stop_with_calls_pending():
        calls = []
        pacer = Pacer(now(), [0.0, 0.01], calls.append)
        time.sleep(0.1)
        pacer.stop()
        await asyncio.sleep(0.02)
        assert calls == []

    asyncio.run(stop_with_calls_pending())
