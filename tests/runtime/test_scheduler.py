from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.decoder import Decoder
from runtime.errors import InputError, PromptTooLong
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler
from runtime.session import open_session

SLOTS = 3


@pytest.fixture(scope="module")
def decoder(decoder_graph: Any) -> Decoder:
    path, graph = decoder_graph
    return Decoder(open_session(path, threads=1), graph, SLOTS)


def fresh(decoder: Decoder, eos_ids: tuple[int, ...] = ()) -> Scheduler:
    decoder.lengths[:] = 0
    return Scheduler(decoder, eos_ids)


def run(scheduler: Scheduler) -> dict[str, tuple[list[int], str | None]]:
    """Step to the end: each request's tokens and finish reason."""
    answers: dict[str, tuple[list[int], str | None]] = {}
    while scheduler.has_work:
        for event in scheduler.step():
            got, _ = answers.get(event.request_id, ([], None))
            kept = got if event.token_id is None else [*got, event.token_id]
            answers[event.request_id] = (kept, event.finish_reason)
    return answers


def alone(decoder: Decoder, request: Request) -> tuple[list[int], str | None]:
    scheduler = fresh(decoder)
    scheduler.add(request)
    return run(scheduler)[request.id]


@st.composite
def requests(draw: Any) -> list[Request]:
    count = draw(st.integers(1, 6))
    return [
        Request(
            id=str(index),
            prompt=draw(st.lists(st.integers(0, 95), min_size=1, max_size=20)),
            params=SamplingParams(
                max_tokens=draw(st.integers(1, 8)),
                temperature=draw(st.sampled_from([0.0, 0.8])),
                top_k=draw(st.sampled_from([0, 5])),
                seed=index,
            ),
        )
        for index in range(count)
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=requests(), data=st.data())
def test_every_survivor_gets_its_solo_tokens(decoder: Decoder, batch: list[Request], data: Any) -> None:
    """Random arrivals and cancellations change nobody else's answer, and no slot is lost."""
    arrivals = [data.draw(st.integers(0, 6), label="arrival") for _ in batch]
    cancelled_at = {r.id: data.draw(st.none() | st.integers(0, 6), label="cancel") for r in batch}
    scheduler = fresh(decoder)
    answers: dict[str, list[int]] = {request.id: [] for request in batch}
    for now in range(200):
        for request, arrival in zip(batch, arrivals, strict=True):
            if arrival == now:
                scheduler.add(request)
            if cancelled_at[request.id] == now:
                scheduler.cancel(request.id)
        for event in scheduler.step():
            assert event.token_id is not None
            answers[event.request_id].append(event.token_id)
        assert scheduler.running <= SLOTS
        if now > 6 and not scheduler.has_work:
            break
    assert not scheduler.has_work
    assert not decoder.lengths.any()
    for request, arrival in zip(batch, arrivals, strict=True):
        solo, reason = alone(decoder, request)
        cancelled = cancelled_at[request.id]
        if cancelled is None or cancelled < arrival:
            assert answers[request.id] == solo
            assert reason == "length"
        else:
            assert answers[request.id] == solo[: len(answers[request.id])]


def test_an_end_token_is_not_shown(decoder: Decoder) -> None:
    request = Request("a", [1, 2, 3], SamplingParams(max_tokens=10, temperature=0))
    greedy, _ = alone(decoder, request)
    scheduler = fresh(decoder, eos_ids=(greedy[2],))
    scheduler.add(request)
    first = greedy.index(greedy[2])
    assert run(scheduler)["a"] == (greedy[:first], "stop")


def test_generation_ends_where_the_context_does(decoder: Decoder) -> None:
    request = Request("a", [1] * 60, SamplingParams(max_tokens=50, temperature=0))
    answer, reason = alone(decoder, request)
    # 64 places: the prompt takes 60, and the last token needs none.
    assert (len(answer), reason) == (5, "length")


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ([], InputError, "empty"),
        ([1] * 64, PromptTooLong, "64 tokens and the context holds 64"),
        ([96], InputError, "outside the vocabulary of 96"),
        ([-1], InputError, "outside the vocabulary"),
    ],
)
def test_prompts_that_can_never_run_are_refused(
    decoder: Decoder, prompt: list[int], error: type[Exception], message: str
) -> None:
    scheduler = fresh(decoder)
    with pytest.raises(error, match=message):
        scheduler.add(Request("a", prompt, SamplingParams()))
    assert not scheduler.has_work


def test_one_prompt_is_prefilled_a_step_and_the_others_go_on(decoder: Decoder) -> None:
    scheduler = fresh(decoder)
    for name in "abcd":
        scheduler.add(Request(name, [1, 2], SamplingParams(max_tokens=5, temperature=0)))
    seen = [sorted(event.request_id for event in scheduler.step()) for _ in range(3)]
    assert seen == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert (scheduler.running, scheduler.waiting) == (3, 1)
    assert np.count_nonzero(decoder.lengths) == 3
