"""Answers to sources of any length, however their slots move: over a small real encoder-decoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.decoder import Decoder
from runtime.request import Request, TokenEvent
from runtime.sampling import SamplingParams
from runtime.scheduler import Scheduler
from runtime.session import open_session
from runtime.speculation import PromptLookup

SLOTS, START, END = 3, (95,), (95,)
Make = Callable[..., Decoder]


@pytest.fixture(scope="module")
def make(bart_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a decoder with room for so many tokens of answers, and for as many of sources."""
    from compress.export.source import export
    from models.sources import load_source

    artifact, _ = export(load_source(f"hf:{bart_folder}"), tmp_path_factory.mktemp("exported"))
    graph: Any = artifact.graph
    session = open_session(artifact.path, threads=1)
    encoder = open_session(artifact.folder / graph.encoder.file, threads=1)
    return lambda slots, kv_tokens: Decoder(session, graph, slots, kv_tokens, encoder=encoder)


def source(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 94, length).tolist()


def answer(events: list[TokenEvent], request: Request) -> list[tuple[int | None, str | None]]:
    return [(event.token_id, event.finish_reason) for event in events if event.request_id == request.id]


def alone(make: Make, request: Request, kv_tokens: int) -> list[tuple[int | None, str | None]]:
    scheduler = Scheduler(make(1, kv_tokens), END, start_ids=START)
    scheduler.add(request)
    events: list[TokenEvent] = []
    while scheduler.has_work:
        events += scheduler.step()
    return answer(events, request)


def test_an_answer_longer_than_its_source_goes_on_after_a_preemption(make: Make) -> None:
    """The kernel takes no more tokens at once than a source has, and a call that had more failed."""
    params = SamplingParams(max_tokens=24, temperature=0, repetition_penalty=2.0, ignore_eos=True)
    batch = [Request(str(seed), source(3, seed), params) for seed in range(3)]
    scheduler = Scheduler(make(SLOTS, 40), END, start_ids=START)
    for request in batch:
        scheduler.add(request)
    events: list[TokenEvent] = []
    while scheduler.has_work:
        events += scheduler.step()
    assert scheduler.statistics.preemptions > 0
    for request in batch:
        assert answer(events, request) == alone(make, request, 40)


def test_what_begins_an_answer_may_be_longer_than_its_source(make: Make) -> None:
    scheduler = Scheduler(make(1, 64), END, start_ids=(95, 7, 8))
    scheduler.add(Request("a", [1], SamplingParams(max_tokens=3, temperature=0, ignore_eos=True)))
    events: list[TokenEvent] = []
    while scheduler.has_work:
        events += scheduler.step()
    assert len(events) == 3


@st.composite
def requests(draw: Any) -> list[Request]:
    return [
        Request(
            id=str(index),
            prompt=source(draw(st.integers(1, 30)), seed=draw(st.integers(0, 99))),
            params=SamplingParams(
                max_tokens=draw(st.integers(1, 30)),
                temperature=draw(st.sampled_from([0.0, 0.8])),
                repetition_penalty=draw(st.sampled_from([1.0, 2.0])),
                seed=index,
                ignore_eos=draw(st.booleans()),
            ),
            priority=draw(st.integers(-1, 1)),
        )
        for index in range(draw(st.integers(1, 5)))
    ]


@settings(max_examples=40)
@given(
    batch=requests(),
    kv_tokens=st.integers(31, 120),
    chunk=st.sampled_from([5, 64]),
    speculates=st.booleans(),
    data=st.data(),
)
def test_every_survivor_gets_its_solo_tokens(
    make: Make, batch: list[Request], kv_tokens: int, chunk: int, speculates: bool, data: Any
) -> None:
    """Whatever arrives, is cancelled, preempted or guessed: each answer is to its own source."""
    arrivals = [data.draw(st.integers(0, 8), label="arrival") for _ in batch]
    cancels = [data.draw(st.none() | st.integers(0, 8), label="cancel") for _ in batch]
    decoder = make(SLOTS, kv_tokens)
    assert decoder.source is not None
    proposer = PromptLookup() if speculates else None
    scheduler = Scheduler(decoder, END, proposer=proposer, prefill_chunk=chunk, start_ids=START)
    events: list[TokenEvent] = []
    for now in range(400):
        for request, arrival, cancel in zip(batch, arrivals, cancels, strict=True):
            if arrival == now:
                scheduler.add(request)
            if cancel == now:
                scheduler.cancel(request.id)
        events += scheduler.step()
        assert max(decoder.lengths.sum(), decoder.source.cache.lengths.sum()) <= kv_tokens
        if now > 8 and not scheduler.has_work:
            break
    assert not scheduler.has_work
    assert not decoder.lengths.any()
    assert not decoder.source.cache.lengths.any()
    for request, arrival, cancel in zip(batch, arrivals, cancels, strict=True):
        got, solo = answer(events, request), alone(make, request, kv_tokens)
        survived = cancel is None or cancel < arrival
        assert got == (solo if survived else solo[: len(got)])
