"""The scheduler over a small real decoder. The property test at the end drives everything together."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from runtime.adapters import Adapters
from runtime.constraint import Constraint, grammar_tokenizer
from runtime.decoder import Decoder
from runtime.errors import InputError, PromptTooLong
from runtime.manifest import AdapterGraph, Signature
from runtime.prefix_cache import PrefixCache
from runtime.request import TokenEvent
from runtime.sampling import SamplingParams
from runtime.scheduler import Request, Scheduler
from runtime.session import open_session
from runtime.speculation import DraftModel, NGramDraft, PromptLookup, Proposer

SLOTS = 3
GREEDY = SamplingParams(max_tokens=5, temperature=0)
Answer = tuple[list[int], str | None]


@pytest.fixture(scope="module")
def session(decoder_graph: Any) -> Any:
    path, _ = decoder_graph
    return open_session(path, threads=1)


@pytest.fixture
def decoder(session: Any, decoder_graph: Any) -> Decoder:
    return Decoder(session, decoder_graph[1], SLOTS)


@pytest.fixture(scope="module")
def over_int8(int8_cache_graph: Any) -> Decoder:
    """The same model, which keeps keys and values in int8."""
    path, graph = int8_cache_graph
    return Decoder(open_session(path, threads=1), graph, SLOTS)


@pytest.fixture(scope="module")
def adaptable(session: Any, llama: Any, decoder_graph: Any, tmp_path_factory: Any) -> tuple[Decoder, Path]:
    """The same model with a graph that takes adapters, and the folder where `one` and `two` are."""
    from compress.artifact import GraphArtifact
    from compress.lora.attach import attach, find_sites

    folder = tmp_path_factory.mktemp("adaptable")
    shutil.copyfile(decoder_graph[0], folder / "decoder.onnx")
    layers = dict(llama.named_modules())
    wanted = [name for name in layers if name.endswith(("q_proj", "down_proj"))]
    weights = {name: layers[name].weight.detach().numpy() for name in wanted}
    sites = find_sites(folder / "decoder.onnx", weights)
    graph = decoder_graph[1].model_copy(update={"adapters": AdapterGraph(sites=sites)})
    attach(GraphArtifact(folder, graph, Signature(inputs=(), outputs=())))
    for rank, name in enumerate(("one", "two"), 1):
        rng, written = np.random.default_rng(rank), ort.AdapterFormat()
        factors = {f"{site.name}.lora_A": rng.normal(size=(site.inputs, rank)) for site in sites}
        factors |= {f"{site.name}.lora_B": rng.normal(0, 0.3, (rank, site.outputs)) for site in sites}
        values = {key: ort.OrtValue.ortvalue_from_numpy(np.float32(each)) for key, each in factors.items()}
        written.set_parameters(values)
        written.export_adapter(str(folder / name))
    adapted = open_session(folder / "decoder.adapted.onnx", threads=1)
    return Decoder(session, graph, SLOTS, adapted=lambda: adapted), folder


def small(decoder: Decoder, kv_tokens: int) -> Decoder:
    """The same decoder with memory for fewer tokens."""
    return Decoder(decoder._phases, decoder.graph, SLOTS, kv_tokens, decoder._adapted)


def collect(events: Sequence[TokenEvent], answers: dict[str, Answer]) -> None:
    for event in events:
        got, reason = answers.get(event.request_id, ([], None))
        assert reason is None, "no event after the last"
        kept = got if event.token_id is None else [*got, event.token_id]
        answers[event.request_id] = (kept, event.finish_reason)


def run(scheduler: Scheduler) -> dict[str, Answer]:
    """Step to the end: each request's tokens and finish reason."""
    answers: dict[str, Answer] = {}
    while scheduler.has_work:
        collect(scheduler.step(), answers)
    return answers


def alone(decoder: Decoder, request: Request, adapters: Adapters | None = None) -> Answer:
    """The answer in a scheduler of its own, with the same limit."""
    own = Decoder(decoder._phases, decoder.graph, 1, decoder.cache.tokens, decoder._adapted)
    scheduler = Scheduler(own, adapters=adapters)
    scheduler.add(request)
    return run(scheduler)[request.id]


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 96, length).tolist()


def test_an_end_token_is_not_shown(decoder: Decoder) -> None:
    request = Request("a", [1, 2, 3], SamplingParams(max_tokens=10, temperature=0))
    greedy, _ = alone(decoder, request)
    first = greedy.index(greedy[2])
    scheduler = Scheduler(decoder, eos_ids=(greedy[2],))
    scheduler.add(request)
    assert run(scheduler)["a"] == (greedy[:first], "stop")


def test_an_end_token_can_be_ignored_and_a_stop_token_not(decoder: Decoder) -> None:
    greedy, _ = alone(decoder, Request("a", [1, 2, 3], GREEDY))
    scheduler = Scheduler(decoder, eos_ids=(greedy[0],))
    on = SamplingParams(max_tokens=5, temperature=0, ignore_eos=True)
    stop = SamplingParams(
        max_tokens=5, temperature=0, ignore_eos=True, stop_token_ids=(greedy[3],), logprobs=0
    )
    scheduler.add(Request("on", [1, 2, 3], on))
    scheduler.add(Request("stop", [1, 2, 3], stop))
    first = greedy.index(greedy[3])
    assert run(scheduler) == {"on": (greedy, "length"), "stop": (greedy[:first], "stop")}


def test_generation_ends_where_the_context_does(decoder: Decoder) -> None:
    request = Request("a", [1] * 60, SamplingParams(max_tokens=50, temperature=0))
    answer, reason = alone(decoder, request)
    # 64 places: the prompt takes 60, and the last token needs none.
    assert (len(answer), reason) == (5, "length")


@pytest.mark.parametrize(
    ("tokens", "params", "error", "message"),
    [
        ([], GREEDY, InputError, "empty"),
        ([1] * 64, GREEDY, PromptTooLong, "64 tokens and the context holds 64"),
        ([96], GREEDY, InputError, "outside the vocabulary of 96"),
        ([-1], GREEDY, InputError, "outside the vocabulary"),
        ([1], SamplingParams(logit_bias={96: 1.0}), InputError, "logit_bias is outside the vocabulary"),
    ],
)
def test_requests_that_can_never_run_are_refused(
    decoder: Decoder, tokens: list[int], params: SamplingParams, error: type[Exception], message: str
) -> None:
    scheduler = Scheduler(decoder)
    with pytest.raises(error, match=message):
        scheduler.add(Request("a", tokens, params))
    assert not scheduler.has_work


def test_one_prompt_is_read_a_step_and_the_others_go_on(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder)
    for name in "abcd":
        scheduler.add(Request(name, [1, 2], GREEDY))
    seen = [sorted(event.request_id for event in scheduler.step()) for _ in range(3)]
    assert seen == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert (scheduler.running, scheduler.waiting) == (3, 1)
    assert np.count_nonzero(decoder.lengths) == 3


def test_a_long_prompt_stalls_nobody(decoder: Decoder) -> None:
    """Who decodes gets a token every step, and a short prompt overtakes the long one."""
    scheduler = Scheduler(decoder, prefill_chunk=8)
    scheduler.add(Request("decoding", [1], SamplingParams(max_tokens=30, temperature=0)))
    scheduler.step()
    long = Request("long", prompt(56), GREEDY)
    scheduler.add(long)
    scheduler.step()
    scheduler.add(Request("short", [1, 2], GREEDY))
    assert {event.request_id for event in scheduler.step()} == {"decoding", "short"}
    steps = 0
    while not (named := [event.request_id for event in scheduler.step()]).count("long"):
        assert "decoding" in named
        steps += 1
    assert steps == 5  # 56 tokens in chunks of 8, one read before the short prompt came
    assert run(scheduler)["long"][0] == alone(decoder, long)[0][1:]


def test_a_prompt_is_read_in_longer_chunks_while_nobody_else_is_there(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder, prefill_chunk=8)
    scheduler.add(Request("long", prompt(56), GREEDY))
    scheduler.step()
    assert decoder.lengths[0] == 16
    scheduler.add(Request("waiting", prompt(56), GREEDY))
    scheduler.step()
    assert decoder.lengths[:2].tolist() == [24, 0]


@pytest.mark.parametrize(("length", "calls"), [(16, 1), (21, 1), (22, 2), (37, 2), (38, 3)])
def test_a_short_rest_is_read_with_the_chunk_before_it(decoder: Decoder, length: int, calls: int) -> None:
    scheduler = Scheduler(decoder, prefill_chunk=8)
    scheduler.add(Request("a", prompt(length), GREEDY))
    seen = [scheduler.step() for _ in range(calls)]
    assert [bool(events) for events in seen] == [False] * (calls - 1) + [True]


def test_a_first_token_does_not_wait_for_another_prompts_cache_to_move(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder, prefill_chunk=8)
    scheduler.add(Request("long", prompt(56), GREEDY))
    scheduler.step()
    scheduler.add(Request("short", [1, 2], GREEDY))
    assert [event.request_id for event in scheduler.step()] == ["short"]
    assert decoder.lengths.tolist() == [16, 2, 0]
    assert [event.request_id for event in scheduler.step()] == ["short"]
    assert decoder.lengths.tolist() == [3, 24, 0]


def test_a_stream_of_short_prompts_does_not_starve_a_long_one(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder, prefill_chunk=8)
    scheduler.add(Request("long", prompt(56), GREEDY))
    for number in range(14):
        scheduler.add(Request(f"short {number}", [1, 2], SamplingParams(max_tokens=1)))
        if any(event.request_id == "long" for event in scheduler.step()):
            return
    pytest.fail("the long prompt got less than every other step")


def test_lower_priority_numbers_run_first_and_equals_in_order(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder)
    for name, priority in [("a", 1), ("b", 0), ("c", 1), ("d", -1)]:
        scheduler.add(Request(name, [1], SamplingParams(max_tokens=1), priority))
    order = []
    while scheduler.has_work:
        order += [event.request_id for event in scheduler.step()]
    assert order == ["d", "b", "a", "c"]


def test_the_last_in_rank_makes_room_and_comes_back(decoder: Decoder) -> None:
    scheduler = Scheduler(small(decoder, 40))
    params = SamplingParams(max_tokens=16, temperature=0)
    batch = [
        Request("a", prompt(10, 1), params),
        Request("b", prompt(10, 2), params, -1),
        Request("c", prompt(4, 3), params),
    ]
    for request in batch:
        scheduler.add(request)
    answers = run(scheduler)
    assert scheduler.statistics.preemptions > 0
    assert answers == {request.id: alone(decoder, request) for request in batch}


def test_memory_bounds_what_may_be_asked(decoder: Decoder) -> None:
    scheduler = Scheduler(small(decoder, 20))
    with pytest.raises(PromptTooLong, match="the context holds 20"):
        scheduler.add(Request("a", prompt(20), GREEDY))
    scheduler.add(Request("b", prompt(18), GREEDY))
    answer, reason = run(scheduler)["b"]
    assert (len(answer), reason) == (3, "length")


def test_a_shared_prefix_is_computed_once(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder, prefix_cache=PrefixCache(1 << 20), prefill_chunk=16)
    first = Request("first", prompt(50), GREEDY)
    second = Request("second", [*prompt(50)[:40], 7, 8], GREEDY)
    scheduler.add(first)
    answers = run(scheduler)
    scheduler.add(second)
    (event,) = scheduler.step()
    assert event.cached_tokens == 32  # two whole blocks of 16
    collect([event], answers)
    collect([e for _ in range(4) for e in scheduler.step()], answers)
    assert answers == {"first": alone(decoder, first), "second": alone(decoder, second)}
    statistics = scheduler.statistics
    assert (statistics.prefix_hit_tokens, statistics.prefix_query_tokens) == (32, 92)


def test_tenants_share_no_prefix(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder, prefix_cache=PrefixCache(1 << 20))
    for name, salt in [("a", ""), ("b", "another tenant"), ("c", "another tenant")]:
        scheduler.add(Request(name, prompt(40), SamplingParams(max_tokens=1), salt=salt))
    hits = {event.request_id: event.cached_tokens for _ in range(3) for event in scheduler.step()}
    assert hits == {"a": 0, "b": 0, "c": 32}


def test_several_answers_to_one_prompt_read_it_once(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder, prefix_cache=PrefixCache(1 << 20), prefill_chunk=16)
    for seed in range(3):
        scheduler.add(Request(str(seed), prompt(50), SamplingParams(max_tokens=2, seed=seed)))
    run(scheduler)
    # They read side by side, each going on from where the others are; 2 tokens are beyond the last block.
    assert scheduler.statistics.prefix_hit_tokens == 2 * 48


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["lookup", "draft", "n-grams"])
def test_speculation_changes_no_token(decoder: Decoder, kind: str, temperature: float) -> None:
    params = SamplingParams(max_tokens=40, temperature=temperature, seed=5)
    request = Request("a", [5, 6, 7] * 5, params)
    scheduler = Scheduler(decoder, proposer=proposer(decoder, kind))
    scheduler.add(request)
    assert run(scheduler)["a"] == alone(decoder, request)
    statistics = scheduler.statistics
    assert 0 <= statistics.accepted_tokens <= statistics.draft_tokens


def test_a_perfect_draft_is_accepted(decoder: Decoder) -> None:
    """The model as its own draft: greedy tokens are all right, so far fewer steps are needed."""
    scheduler = Scheduler(decoder, proposer=proposer(decoder, "draft"))
    scheduler.add(Request("a", [1, 2, 3], SamplingParams(max_tokens=12, temperature=0)))
    steps = 0
    while scheduler.has_work:
        scheduler.step()
        steps += 1
    statistics = scheduler.statistics
    assert statistics.accepted_tokens == statistics.draft_tokens > 0
    assert steps < 12


def proposer(decoder: Decoder, kind: str | None) -> Proposer | None:
    if kind is None:
        return None
    if kind == "n-grams":
        return NGramDraft(np.tile(prompt(96), 2), decoder.graph.vocab_size)
    return (
        PromptLookup() if kind == "lookup" else DraftModel(Decoder(decoder._phases, decoder.graph, slots=1))
    )


def test_a_report_is_of_the_models_own_distribution(decoder: Decoder) -> None:
    scheduler = Scheduler(decoder)
    params = SamplingParams(max_tokens=3, temperature=0, logprobs=2, presence_penalty=2.0)
    scheduler.add(Request("a", [1, 2, 3], params))
    events = [event for _ in range(3) for event in scheduler.step()]
    logits = Decoder(decoder._phases, decoder.graph, 1).prefill(0, np.array([1, 2, 3]))
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum())
    report = events[0].logprob
    assert report is not None
    assert report.token_id == events[0].token_id == report.top[0][0] == logits.argmax()
    assert [token for token, _ in report.top] == np.argsort(-logits)[:2].tolist()
    np.testing.assert_allclose([value for _, value in report.top], np.sort(expected)[:-3:-1], rtol=1e-4)


def test_an_answer_keeps_to_its_form_beside_others(decoder: Decoder, tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    form = Constraint.regex("[a-c]{4}-[0-9]+", grammar_tokenizer(tokenizer, [95]))
    free = Request("free", [4, 5, 6], GREEDY)
    scheduler = Scheduler(small(decoder, 30), eos_ids=(95,))
    scheduler.add(Request("form", [1, 2, 3], SamplingParams(max_tokens=9, seed=1), constraint=form))
    scheduler.add(free)
    answers = run(scheduler)
    assert re.fullmatch("[a-c]{4}-[0-9]*", tokenizer.decode(answers["form"][0]))
    assert answers["free"] == alone(decoder, free)


def test_an_answer_that_can_only_end_ends(decoder: Decoder, tokenizer_file: Path) -> None:
    """Even where the model has no end-of-text token of its own."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    form = Constraint.regex("ab", grammar_tokenizer(tokenizer, []))
    scheduler = Scheduler(decoder)
    scheduler.add(Request("a", [1], SamplingParams(max_tokens=9), constraint=form))
    answer, reason = run(scheduler)["a"]
    assert (tokenizer.decode(answer), reason) == ("ab", "stop")


def test_a_form_that_leads_nowhere_ends_its_answer_alone(decoder: Decoder, tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    form = Constraint.regex(r"[^\x00-\x{10FFFF}]", grammar_tokenizer(tokenizer, [95]))
    free = Request("free", [4, 5, 6], GREEDY)
    scheduler = Scheduler(small(decoder, 30))
    scheduler.add(Request("form", [1, 2, 3], SamplingParams(max_tokens=9, ignore_eos=True), constraint=form))
    scheduler.add(free)
    answers = run(scheduler)
    assert answers["form"] == ([], "error")
    assert answers["free"] == alone(decoder, free)


@st.composite
def requests(draw: Any) -> list[Request]:
    count = draw(st.integers(1, 6), label="requests")
    beginning = prompt(40, seed=1)
    return [
        Request(
            id=str(index),
            prompt=beginning[: draw(st.integers(0, 40))] + prompt(draw(st.integers(1, 10)), seed=index),
            params=SamplingParams(
                max_tokens=draw(st.integers(1, 12)),
                temperature=draw(st.sampled_from([0.0, 0.8])),
                top_k=draw(st.sampled_from([0, 5])),
                frequency_penalty=draw(st.sampled_from([0.0, 1.0])),
                seed=index,
            ),
            priority=draw(st.integers(-1, 1)),
            salt=draw(st.sampled_from(["", "tenant"])),
            adapter=draw(st.sampled_from([None, None, "one", "two"])),
        )
        for index in range(count)
    ]


@settings(max_examples=80)
@given(
    batch=requests(),
    kv_tokens=st.integers(52, 3 * 64),
    chunk=st.sampled_from([5, 16, 64]),
    kind=st.sampled_from([None, "lookup", "draft", "n-grams"]),
    prefix_blocks=st.sampled_from([None, 2, 100]),
    int8=st.booleans(),
    data=st.data(),
)
def test_every_survivor_gets_its_solo_tokens(
    adaptable: tuple[Decoder, Path],
    over_int8: Decoder,
    batch: list[Request],
    kv_tokens: int,
    chunk: int,
    kind: str | None,
    prefix_blocks: int | None,
    int8: bool,
    data: Any,
) -> None:
    """Whatever arrives, is cancelled, preempted, shared, guessed or unloaded: nobody else's answer changes,
    no slot is lost, and the KV budget is kept, over a float32 cache with adapters, or an int8 one."""
    decoder, folder = adaptable
    adapters = Adapters(decoder.graph.adapters)
    for name in ("one", "two"):
        adapters.load(name, folder / name)
    if int8:
        decoder, batch = over_int8, [replace(request, adapter=None) for request in batch]
    arrivals = [data.draw(st.integers(0, 12), label="arrival") for _ in batch]
    cancelled_at = {r.id: data.draw(st.none() | st.integers(0, 12), label="cancel") for r in batch}
    crowded = small(decoder, kv_tokens)
    prefixes = PrefixCache(prefix_blocks * 16 * 256) if prefix_blocks else None
    scheduler = Scheduler(
        crowded,
        adapters=adapters,
        prefix_cache=prefixes,
        proposer=proposer(decoder, kind),
        prefill_chunk=chunk,
    )
    solos = {r.id: alone(small(decoder, kv_tokens), r, adapters) for r in batch}
    answers: dict[str, Answer] = {request.id: ([], None) for request in batch}
    for now in range(400):
        for request, arrival in zip(batch, arrivals, strict=True):
            if arrival == now:
                scheduler.add(request)
            if cancelled_at[request.id] == now:
                scheduler.cancel(request.id)
        if now == 12:
            # All have come; whoever uses it goes on with it.
            adapters.unload("one")
        collect(scheduler.step(), answers)
        assert crowded.lengths.sum() <= kv_tokens
        assert np.count_nonzero(crowded.lengths) <= scheduler.running <= SLOTS
        if now > 12 and not scheduler.has_work:
            break
    assert not scheduler.has_work
    assert not crowded.lengths.any()
    for request, arrival in zip(batch, arrivals, strict=True):
        solo, reason = solos[request.id]
        answer, ended = answers[request.id]
        cancelled = cancelled_at[request.id]
        if cancelled is None or cancelled < arrival or ended:
            assert (answer, ended) == (solo, reason)
        else:
            assert answer == solo[: len(answer)]
