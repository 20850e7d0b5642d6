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
    def stall(index):
        if index == 0:
            time.sleep(0.4)

    calls = asyncio.run(pace([0.0, 0.05, 0.1, 0.6], stall))
    moments = [moment for _, moment in calls]
    assert 0.4 <= moments[1] <= moments[2] < 0.6
    assert 0.6 <= moments[3] < 0.9


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
