"""The OpenAI dialect, spoken by the unmodified `openai` client."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import httpx
import openai
import pytest

from runtime.bundle import Bundle
from runtime.model import TextModel, load_model
from runtime.sampling import SamplingParams

MODEL = "chatter-tiny"
PROMPTS = ["def main(", "import ", "class A:", "x = [", "return", "for i in", "while True", "# to do"]


@pytest.fixture(scope="module")
def client(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(bundles: Path) -> TextModel:
    return load_model(Bundle.open(bundles / "chatter"))


def greedy(model: TextModel, prompt: str, tokens: int) -> str:
    return "".join(model.generate(prompt, SamplingParams(tokens, temperature=0)))


def test_models_are_listed_and_found(client):
    assert {model.id for model in client.models.list()} == {"digits-tiny", MODEL}
    assert client.models.retrieve(MODEL).id == MODEL


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
    assert len(chunks) == 20
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 19 + ["length"]
    assert last.choices == []
    assert last.usage.completion_tokens == 20


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
        ({"echo": True}, "echo"),
        ({"n": 2}, "n"),
        ({"logprobs": 3}, "logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"stop": ["a"] * 5}, "stop"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(client, extra, param):
    with pytest.raises(openai.BadRequestError, match=param) as caught:
        client.completions.create(model=MODEL, prompt="a", **extra)
    assert caught.value.param == param


def test_neutral_values_and_nulls_are_taken(client):
    neutral = {"n": 1, "best_of": 1, "echo": False, "presence_penalty": 0.0, "logprobs": None, "user": "me"}
    client.completions.create(model=MODEL, prompt="a", max_tokens=1, extra_body=neutral)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(server, eventually, stream):
    used = 'modelpress_kv_slots_used{model="chatter-tiny"}'
    generated = 'modelpress_generated_tokens_total{model="chatter-tiny"}'
    before = server.metrics()[generated]
    body = {"model": MODEL, "prompt": "a", "max_tokens": 16_000, "stream": stream}
    with (
        httpx.Client(timeout=0.3) as client,
        nullcontext() if stream else pytest.raises(httpx.ReadTimeout),
        client.stream("POST", f"{server.url}/v1/completions", json=body) as response,
    ):
        next(response.iter_lines())
    eventually(lambda: server.metrics()[used] == 0)
    assert 0 < server.metrics()[generated] - before < 16_000
