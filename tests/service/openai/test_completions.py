"""Completions, asked for by the unmodified `openai` client."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import numpy as np
import openai
import pytest

from runtime.bundle import Bundle
from runtime.model import TextModel
from runtime.sampling import SamplingParams

MODEL = "chatter-tiny"
PROMPTS = ["def main(", "import ", "class A:", "x = [", "return", "for i in", "while True", "# to do"]


def greedy(model: TextModel, prompt: str, tokens: int) -> str:
    return "".join(model.generate(prompt, SamplingParams(tokens, temperature=0)))


def test_a_completion_is_what_the_model_says_in_process(client, model):
    answer = client.completions.create(model=MODEL, prompt="hello", max_tokens=20, temperature=0)
    assert answer.choices[0].text == greedy(model, "hello", 20)
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        5,
        20,
        25,
    )


def test_a_stream_gives_the_same_text_and_its_usage(client, model):
    stream = client.completions.create(
        model=MODEL,
        prompt="hello",
        max_tokens=20,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    assert "".join(chunk.choices[0].text for chunk in chunks) == greedy(model, "hello", 20)
    *before, end = [chunk.choices[0].finish_reason for chunk in chunks]
    assert (set(before) - {None}, end) == (set(), "length")
    assert last.choices == []
    assert last.usage.completion_tokens == 20


def test_every_chunk_may_say_what_has_been_used_so_far(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    stream = client.completions.create(
        model=MODEL, prompt="hello", max_tokens=5, temperature=0, stream=True, stream_options=options
    )
    used = [chunk.usage.completion_tokens for chunk in stream]
    # Tokens that came together are one chunk.
    assert used[:-1] == sorted(set(used))
    assert used[-2:] == [5, 5]


def test_concurrent_streams_say_what_each_says_alone(client, model):
    def ask(prompt: str) -> str:
        stream = client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=40, temperature=0, stream=True
        )
        return "".join(chunk.choices[0].text for chunk in stream)

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        together = list(pool.map(ask, PROMPTS))
    assert together == [greedy(model, prompt, 40) for prompt in PROMPTS]


def test_several_prompts_are_answered_in_order(client, model):
    answer = client.completions.create(model=MODEL, prompt=PROMPTS[:3], max_tokens=5, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.text for choice in answer.choices] == [greedy(model, prompt, 5) for prompt in PROMPTS[:3]]
    assert answer.usage.completion_tokens == 15


def test_tokens_are_a_prompt_too(client, model):
    tokens = model.encode("hello")
    for prompt in (tokens, [tokens]):
        answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=8, temperature=0)
        assert answer.choices[0].text == greedy(model, "hello", 8)


@pytest.mark.parametrize("options", [{}, {"stream": True}, {"echo": True}, {"echo": True, "logprobs": 1}])
@pytest.mark.parametrize("token", [-1, 2**20, 2**32, 2**64])
def test_a_number_that_is_no_tokens_is_refused_before_anything_decodes_it(client, token, options):
    for prompt in ([104, token], [[104], [token]]):
        with pytest.raises(openai.BadRequestError, match="outside the vocabulary"):
            client.completions.create(model=MODEL, prompt=prompt, max_tokens=2, **options)


def test_a_stop_string_ends_the_answer_before_it(client, model):
    text = greedy(model, "hello", 30)
    stop = text[8:11]
    answer = client.completions.create(model=MODEL, prompt="hello", max_tokens=30, temperature=0, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 30


def test_a_stop_string_ends_one_prompt_and_not_its_neighbour(client, model):
    first, second = (greedy(model, prompt, 30) for prompt in PROMPTS[:2])
    stop = next(first[i : i + 3] for i in range(5, 27) if first[i : i + 3] not in second)
    answer = client.completions.create(
        model=MODEL, prompt=PROMPTS[:2], max_tokens=30, temperature=0, stop=[stop]
    )
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "length"]
    assert answer.choices[1].text == second


def test_a_seed_draws_the_same_again(client):
    def draw(seed: int) -> str:
        return client.completions.create(model=MODEL, prompt="a", max_tokens=30, seed=seed).choices[0].text

    assert draw(1) == draw(1) != draw(2)
    # OpenAI's seeds are any 64 bits with a sign.
    assert draw(-1) == draw(-1) != draw(-2)


def test_what_vllms_clients_send_for_no_limit_is_none(client):
    said = [
        client.completions.create(model=MODEL, prompt="a", max_tokens=30, seed=3, extra_body={"top_k": top_k})
        .choices[0]
        .text
        for top_k in (0, -1)
    ]
    assert said[0] == said[1]


def test_generation_ends_where_the_context_does(client, bundles):
    context = Bundle.open(bundles / "chatter").manifest.graph.context_length
    answer = client.completions.create(model=MODEL, prompt=[1] * (context - 3), max_tokens=50)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4


def test_an_unknown_model_is_not_found_and_the_nearest_is_named(client):
    with pytest.raises(openai.NotFoundError, match="did you mean 'chatter-tiny'") as caught:
        client.completions.create(model="chater-tiny", prompt="a")
    assert caught.value.code == "model_not_found"


def test_a_prompt_that_is_too_long_has_openais_code(client):
    with pytest.raises(openai.BadRequestError, match="shorten it") as caught:
        client.completions.create(model=MODEL, prompt=[1] * 20_000, stream=True)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"n": 0}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"extra_body": {"response_format": {"type": "json_schema"}}}, "response_format"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, extra, param):
    with pytest.raises(openai.BadRequestError, match=param.partition(".")[0]) as caught:
        client.completions.create(model=MODEL, prompt="a", **extra)
    assert caught.value.param.startswith(param)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"logit_bias": {"999": 1}}, "outside the vocabulary"),
        ({"presence_penalty": 3}, "presence_penalty is 3"),
        ({"temperature": -1}, "temperature is -1"),
        ({"extra_body": {"min_p": 2}}, "min_p is 2"),
    ],
)
def test_a_value_out_of_range_is_refused(client, extra, message):
    with pytest.raises(openai.BadRequestError, match=message):
        client.completions.create(model=MODEL, prompt="a", **extra)


def test_neutral_values_and_nulls_are_taken(client):
    neutral = {"n": 1, "best_of": 1, "echo": False, "presence_penalty": 0.0, "logprobs": None, "user": "me"}
    neutral |= {"suffix": ""}
    client.completions.create(model=MODEL, prompt="a", max_tokens=1, extra_body=neutral)


def test_n_answers_to_each_prompt_come_in_order_and_differ(client):
    def ask(n: int, **more: object) -> openai.types.Completion:
        return client.completions.create(model=MODEL, prompt=PROMPTS[:2], max_tokens=20, seed=5, n=n, **more)

    answer = ask(3)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert len({choice.text for choice in answer.choices}) == 6
    assert [choice.text for choice in answer.choices[::3]] == [choice.text for choice in ask(1).choices]
    assert answer.usage.prompt_tokens == ask(1).usage.prompt_tokens
    texts = [""] * 6
    for chunk in ask(3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in answer.choices]


def test_logprobs_are_those_of_the_graph(client, model):
    answer = client.completions.create(model=MODEL, prompt="hello", max_tokens=4, temperature=0, logprobs=3)
    text, lists = answer.choices[0].text, answer.choices[0].logprobs
    assert "".join(lists.tokens) == text
    assert lists.text_offset == [0, 1, 2, 3]
    logits = model.score(np.array([model.encode("hello" + text)]))[0, 4:8]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ids = model.encode(text)
    np.testing.assert_allclose(lists.token_logprobs, expected[range(4), ids], rtol=1e-3, atol=1e-3)
    for row, top in zip(expected, lists.top_logprobs, strict=True):
        np.testing.assert_allclose(sorted(top.values()), np.sort(row)[-3:], rtol=1e-3, atol=1e-3)


def test_a_stream_carries_the_same_logprobs(client):
    asked = {"model": MODEL, "prompt": "hello", "max_tokens": 6, "temperature": 0, "logprobs": 0}
    whole = client.completions.create(**asked).choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in client.completions.create(**asked, stream=True)]
    assert [token for part in parts for token in part.tokens] == whole.tokens
    assert [offset for part in parts for offset in part.text_offset] == whole.text_offset
    assert [value for part in parts for value in part.token_logprobs] == pytest.approx(whole.token_logprobs)


@pytest.mark.parametrize("stream", [True, False])
def test_the_prompt_is_echoed_and_scored(client, model, stream):
    answer = client.completions.create(
        model=MODEL, prompt="abc", max_tokens=2, temperature=0, echo=True, logprobs=1, stream=stream
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    assert "".join(choice.text for choice in choices) == "abc" + greedy(model, "abc", 2)
    logprobs = [value for choice in choices for value in choice.logprobs.token_logprobs]
    logits = model.score(np.array([model.encode("abc")]))[0]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert logprobs[0] is None
    assert logprobs[1:3] == pytest.approx(
        [expected[i, t] for i, t in enumerate(model.encode("bc"))], rel=1e-3
    )
    assert [o for choice in choices for o in choice.logprobs.text_offset] == list(range(5))


@pytest.mark.parametrize("stream", [True, False])
def test_offsets_count_characters_where_tokens_are_bytes(client, stream):
    asked = {"model": MODEL, "prompt": "é€😀", "max_tokens": 2, "echo": True, "logprobs": 0}
    answer = client.completions.create(**asked, stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    offsets = [offset for choice in choices for offset in choice.logprobs.text_offset]
    assert offsets == [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4]


def test_a_prompt_can_be_scored_without_an_answer(client):
    answer = client.completions.create(model=MODEL, prompt=["ab", "c"], max_tokens=0, echo=True, logprobs=0)
    assert [choice.text for choice in answer.choices] == ["ab", "c"]
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [2, 1]
    assert answer.usage.completion_tokens == 0


def test_a_bias_forces_and_forbids_a_token(client, model):
    (wanted,) = model.encode("Q")
    forced = client.completions.create(model=MODEL, prompt="a", max_tokens=5, logit_bias={str(wanted): 100})
    assert forced.choices[0].text == "QQQQQ"
    greedily = {"model": MODEL, "prompt": "a", "max_tokens": 30, "temperature": 0}
    first = greedy(model, "a", 1)
    forbidden = client.completions.create(**greedily, logit_bias={str(model.encode(first)[0]): -100})
    assert first not in forbidden.choices[0].text


def test_the_extensions_reach_the_sampler(client, model):
    def ask(**extra: object) -> str:
        return (
            client.completions.create(model=MODEL, prompt="a", max_tokens=20, seed=3, extra_body=extra)
            .choices[0]
            .text
        )

    assert ask(top_k=1) == ask(min_p=1.0) == ask(top_p=0) == greedy(model, "a", 20)
    assert ask(top_k=1) != ask()
    repeated = ask(top_k=1, repetition_penalty=50.0)
    assert len(set(repeated)) > len(set(ask(top_k=1)))
    stop = model.encode(greedy(model, "a", 4)[3])
    assert (
        ask(top_k=1, stop_token_ids=stop) == greedy(model, "a", 20).partition(model.tokenizer.decode(stop))[0]
    )


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(server, eventually, stream):
    running = 'modelpress_num_requests_running{model="chatter-tiny"}'
    generated = 'modelpress_generation_tokens_total{model="chatter-tiny"}'
    before = server.metrics()[generated]
    body = {"model": MODEL, "prompt": "a", "max_tokens": 16_000, "stream": stream}
    with closing(HTTPConnection(server.url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        eventually(lambda: server.metrics()[generated] > before)
    eventually(lambda: server.metrics()[running] == 0)
    assert 0 < server.metrics()[generated] - before < 16_000
