"""The engine: one thread, many requests; nothing hangs and nothing is kept."""

import asyncio
import gc
import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from prometheus_client import REGISTRY

from runtime.bundle import Bundle
from runtime.errors import InputError, PromptTooLong
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler, TokenEvent
from service import context, heartbeat
from service.completion import complete, requests
from service.context import RequestContext
from service.engine import Engine
from service.errors import ModelFailed, TooBusy
from service.generation import Generation
from service.keys import Key
from service.stepper import Stepper

GREEDY = SamplingParams(max_tokens=6, temperature=0)
LONG = SamplingParams(max_tokens=10_000)


@pytest.fixture(scope="module")
def model(bundles: Path) -> TextModel:
    return load_model(Bundle.open(bundles / "chatter"))


def _fail() -> list[TokenEvent]:
    raise ArithmeticError


class Breaking:
    """A model whose schedulers raise at the first step, or cannot be made after the first."""

    def __init__(self, model: TextModel, *, schedulers: int) -> None:
        self.manifest = model.manifest
        self._model, self._left = model, schedulers

    def scheduler(self, slots: int) -> Scheduler:
        self._left -= 1
        if self._left < 0:
            raise MemoryError
        scheduler = self._model.scheduler(slots)
        if self._left:
            scheduler.step = _fail
        return scheduler


class Stepped:
    """A model, and its one scheduler, that steps only when the gate is released."""

    def __init__(self, model: TextModel) -> None:
        self.manifest = model.manifest
        self.gate, self.steps = threading.Semaphore(0), 0
        self._model = model

    def scheduler(self, slots: int) -> "Stepped":
        self._scheduler = self._model.scheduler(slots)
        return self

    def step(self) -> list[TokenEvent]:
        self.gate.acquire()
        self.steps += 1
        return self._scheduler.step()

    def __getattr__(self, name: str) -> object:
        return getattr(self._scheduler, name)


def run(model: object, test: Callable[[Engine], Awaitable[None]], *, slots: int = 2, queue: int = 2) -> None:
    async def main() -> None:
        engine = Engine(model, slots=slots, queue_size=queue)
        engine.start()
        try:
            await asyncio.wait_for(test(engine), 120)
        finally:
            await engine.stop()
        assert not any(thread.name.startswith("engine") for thread in threading.enumerate())

    asyncio.run(main())


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"modelpress_{name}", {"model": "chatter-tiny"})


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(f"modelpress_{name}_total", {"model": "chatter-tiny"}) or 0.0


async def tokens(engine: Engine, prompt: list[int], params: SamplingParams = GREEDY) -> list[int | None]:
    async with Generation(engine, requests([prompt], params)) as generation:
        return [event.token_id async for found in generation for event in found[0]]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


def test_more_requests_than_slots_all_get_their_own_tokens(model):
    async def test(engine: Engine) -> None:
        together = await asyncio.gather(*(tokens(engine, [i, i + 1]) for i in range(4)))
        alone = [await tokens(engine, [i, i + 1]) for i in range(4)]
        assert together == alone

    run(model, test)


def test_a_full_queue_refuses_and_recovers(model):
    async def test(engine: Engine) -> None:
        async with Generation(engine, requests([[1]] * 4, LONG)):
            with pytest.raises(TooBusy, match="try again"):
                await tokens(engine, [1])
        assert len(await tokens(engine, [1])) == 6

    run(model, test)


def test_a_batch_that_never_fits_is_the_clients_mistake(model):
    async def test(engine: Engine) -> None:
        with pytest.raises(InputError, match="at most 4"):
            async with Generation(engine, requests([[1]] * 5, GREEDY)):
                pass

    run(model, test)


def test_a_prompt_that_cannot_run_fails_alone(model):
    async def test(engine: Engine) -> None:
        before = counted("cancellations")
        bad, good = await asyncio.gather(
            tokens(engine, [1] * 20_000), tokens(engine, [1]), return_exceptions=True
        )
        assert isinstance(bad, PromptTooLong)
        assert len(good) == 6
        assert counted("cancellations") == before

    run(model, test)


def test_leaving_frees_the_slots_after_the_step_that_is_running(model):
    stepped = Stepped(model)

    async def test(engine: Engine) -> None:
        async with Generation(engine, requests([[1], [2], [3]], LONG)) as generation:
            stepped.gate.release()
            await anext(generation)
            assert stepped.running == 2
        stepped.gate.release()
        await until(lambda: gauge("num_requests_running") == gauge("num_requests_waiting") == 0)
        # The step that gave the token, and one more if it had begun before the client left.
        assert stepped.steps <= 2

    run(stepped, test)


def test_whoever_leaves_is_counted_for_each_answer_that_was_not_whole(model):
    async def test(engine: Engine) -> None:
        before = counted("cancellations")
        async with aclosing(complete(engine, requests([[1], [2]], LONG))) as pieces:
            await anext(pieces)
        assert counted("cancellations") == before + 2

    run(model, test)


def test_a_dropped_prompt_leaves_the_others_alone(model):
    async def test(engine: Engine) -> None:
        events: list[TokenEvent] = []
        async with Generation(engine, requests([[1], [2]], GREEDY)) as generation:
            async for found in generation:
                generation.drop(0)
                events += found.get(1, [])
        assert [event.token_id for event in events] == await tokens(engine, [2])

    run(model, test)


def test_a_step_that_raises_fails_its_requests_and_the_next_ones_run(model):
    async def test(engine: Engine) -> None:
        failed = await asyncio.gather(tokens(engine, [1]), tokens(engine, [2]), return_exceptions=True)
        assert [type(error) for error in failed] == [ModelFailed, ModelFailed]
        await until(lambda: gauge("num_requests_running") == gauge("num_requests_waiting") == 0)
        assert len(await tokens(engine, [1])) == 6
        assert not engine.failed

    run(Breaking(model, schedulers=2), test)


def test_an_engine_that_cannot_recover_says_so(model):
    async def test(engine: Engine) -> None:
        await until(lambda: engine.failed)
        with pytest.raises(ModelFailed, match="restart"):
            await tokens(engine, [1])

    run(Breaking(model, schedulers=0), test)


class Hanging:
    """A model whose first scheduler hangs in a step until it is let go; the later ones are well."""

    def __init__(self, model: TextModel) -> None:
        self.manifest, self.go = model.manifest, threading.Event()
        self._model, self._made = model, 0

    def scheduler(self, slots: int) -> Scheduler:
        scheduler, self._made = self._model.scheduler(slots), self._made + 1
        if self._made == 1:
            step = scheduler.step
            scheduler.step = lambda: self.go.wait(20) and step()
        return scheduler


def test_a_stalled_engine_is_restarted_by_the_heartbeat_and_works_again(model):
    hanging = Hanging(model)
    before = counted("engine_restarts")

    async def test(engine: Engine) -> None:
        # Longer than a busy machine takes to make a scheduler, or that one would be taken for stalled, too.
        watch = asyncio.create_task(heartbeat.watch(lambda: [engine], stall=1.0))
        try:
            with pytest.raises(ModelFailed, match="try again"):
                await tokens(engine, [1])
            assert len(await tokens(engine, [1])) == 6
            assert counted("engine_restarts") == before + 1
            assert engine.stuck_for() < 1.0
        finally:
            hanging.go.set()
        # What the lost thread says when it comes back is not heard.
        assert len(await tokens(engine, [1])) == 6
        assert counted("engine_restarts") == before + 1
        watch.cancel()
        await until(lambda: sum(each.name.startswith("engine") for each in threading.enumerate()) == 1)

    run(hanging, test)


def test_the_heartbeat_tries_an_engine_again_that_could_not_be_made(model):
    broken = Breaking(model, schedulers=0)

    async def test(engine: Engine) -> None:
        await until(lambda: engine.failed)
        broken._left = 2
        watch = asyncio.create_task(heartbeat.watch(lambda: [engine], stall=0.5))
        await until(lambda: not engine.failed)
        watch.cancel()

    run(broken, test)


def test_the_heartbeat_writes_down_what_the_process_uses(model):
    async def test(engine: Engine) -> None:
        watch = asyncio.create_task(heartbeat.watch(list, stall=0.01))
        used = REGISTRY.get_sample_value("modelpress_cpu_seconds_total") or 0.0
        await until(lambda: (REGISTRY.get_sample_value("modelpress_cpu_seconds_total") or 0.0) > used)
        assert REGISTRY.get_sample_value("modelpress_resident_memory_bytes") > 2**20
        watch.cancel()

    run(model, test)


def test_an_idle_engine_uses_no_cpu(model):
    async def test(engine: Engine) -> None:
        await tokens(engine, [1])
        before = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - before < 0.1

    run(model, test)


def test_the_requests_of_a_key_share_prompts_with_nobody_elses(model):
    class Recording(Stepped):
        salts: ClassVar[list[str]] = []

        def add(self, request: Request) -> None:
            self.salts.append(request.salt)
            self._scheduler.add(request)

    recording = Recording(model)

    async def test(engine: Engine) -> None:
        for _ in range(12):
            recording.gate.release()
        await tokens(engine, [1])
        context.enter(RequestContext("r1", key=Key("ann", frozenset({"infer"}), b"")))
        await tokens(engine, [1])
        assert recording.salts == ["", "ann"]

    run(recording, test)


def test_a_stopped_engine_is_gone_without_the_garbage_collector(model):
    async def main() -> None:
        engine = Engine(model, slots=2, queue_size=2)
        engine.start()
        gc.disable()
        try:
            assert len(await tokens(engine, [1])) == 6
            await engine.stop()
            kept = weakref.ref(engine)
            del engine
            async with asyncio.timeout(120):
                await until(lambda: kept() is None)
        finally:
            gc.enable()

    asyncio.run(main())


def test_steps_that_nobody_could_tell_apart_are_told_together(model):
    told: list[list[TokenEvent]] = []
    over = threading.Event()

    class Listener:
        def stepped(self, events: list[TokenEvent]) -> None:
            told.append(events)
            if events[-1].finish_reason:
                over.set()

    stepper = Stepper("chatter-tiny", lambda: model.scheduler(1), Listener())
    stepper.start()
    params = SamplingParams(max_tokens=1000, temperature=0, ignore_eos=True)
    stepper.submit(lambda scheduler: scheduler.add(Request("r", [1], params)))
    assert over.wait(120)
    stepper.stop()
    stepper.join(120)
    # The first one at once, for somebody waits for it; and none is lost.
    assert len(told[0]) == 1
    assert len(told) < 1000
    assert sum(map(len, told)) == 1000
    assert told[-1][-1].finish_reason == "length"


def test_where_one_answer_begins_or_ends_nobody_else_is_woken(model, monkeypatch):
    # Nothing is told for its age.
    monkeypatch.setattr("service.stepper.TELL_SECONDS", math.inf)
    told: list[list[TokenEvent]] = []
    over = threading.Event()

    class Listener:
        def stepped(self, events: list[TokenEvent]) -> None:
            told.append(events)
            if any(event.request_id == "long" and event.finish_reason for event in events):
                over.set()

    stepper = Stepper("chatter-tiny", lambda: model.scheduler(2), Listener())
    lengths = {"long": 200} | {f"short{index}": 3 for index in range(20)}
    for name, length in lengths.items():
        params = SamplingParams(max_tokens=length, temperature=0, ignore_eos=True)
        stepper.submit(partial(Scheduler.add, request=Request(name, [1], params)))
    stepper.start()
    assert over.wait(60)
    stepper.stop()
    stepper.join(30)
    assert Counter(event.request_id for events in told for event in events) == lengths
    with_long = [events for events in told if any(event.request_id == "long" for event in events)]
    assert len(with_long) == 2
