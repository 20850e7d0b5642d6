"""Chat completions, asked for by the unmodified `openai` client."""

import json
import math
from typing import Any, Literal

import openai
import pydantic
import pytest

from runtime.model import TextModel
from runtime.sampling import SamplingParams

MODEL = "chatter-tiny"
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
# What the bundle's own template makes of it.
PROMPT = "<system>Be brief.<user>hello<assistant>"
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green"]},
        "count": {"enum": [1, 2, 3]},
        "ok": {"type": "boolean"},
    },
    "required": ["colour", "count", "ok"],
    "additionalProperties": False,
}


def greedy(model: TextModel, prompt: str, tokens: int) -> str:
    return "".join(model.generate(prompt, SamplingParams(tokens, temperature=0)))


def ask(client: openai.OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**({"model": MODEL, "messages": HELLO, "max_tokens": 12} | more))


def test_the_conversation_goes_through_the_models_own_template(client, model):
    answer = ask(client, temperature=0)
    message = answer.choices[0].message
    assert (message.role, message.content) == ("assistant", greedy(model, PROMPT, 12))
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == len(PROMPT)
    assert (answer.object, answer.usage.completion_tokens) == ("chat.completion", 12)


def test_parts_and_developers_are_texts_and_systems(client, model):
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert ask(client, messages=messages, temperature=0).choices[0].message.content == greedy(
        model, PROMPT, 12
    )


def test_what_asks_for_nothing_is_taken(client, model):
    neutral = {
        "tools": [],
        "tool_choice": "none",
        "parallel_tool_calls": False,
        "modalities": ["text"],
        "prediction": {"type": "content", "content": "hello"},
        "reasoning_effort": "none",
        "prompt_cache_retention": "24h",
    }
    assert ask(client, temperature=0, **neutral).choices[0].message.content == greedy(model, PROMPT, 12)


def test_a_conversation_of_another_server_goes_on(client, model):
    said = {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "tool_calls": []}
    answer = ask(client, messages=[*HELLO, said, HELLO[1]], temperature=0)
    prompt = PROMPT + "hi<user>hello<assistant>"
    assert answer.choices[0].message.content == greedy(model, prompt, 12)


def test_the_template_sees_who_speaks(client, model):
    answer = ask(client, messages=[{"role": "user", "name": "ada", "content": "hello"}], temperature=0)
    assert answer.choices[0].message.content == greedy(model, "<user ada>hello<assistant>", 12)


def test_a_stream_gives_the_role_once_then_the_text_then_the_usage(client, model):
    *chunks, last = ask(client, temperature=0, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == greedy(model, PROMPT, 12)
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk.usage is None for chunk in chunks)
    assert (last.choices, last.usage.completion_tokens) == ([], 12)


def test_the_clients_own_stream_helper_puts_it_together(client, model):
    text = greedy(model, PROMPT, 12)
    with client.chat.completions.stream(model=MODEL, messages=HELLO, temperature=0, stop=text[9:]) as stream:
        assert stream.get_final_completion().choices[0].message.content == text[: text.index(text[9:])]


def test_the_clients_own_parse_helper_gets_its_object(client):
    class Thing(pydantic.BaseModel):
        colour: Literal["red", "green"]
        ok: bool

    answer = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Thing)
    assert answer.choices[0].message.parsed.colour in ("red", "green")


def test_without_a_limit_the_answer_ends_where_it_is_stopped(client, model):
    text = greedy(model, PROMPT, 40)
    answer = ask(client, max_tokens=None, temperature=0, stop=[text[30:33]])
    assert answer.choices[0].message.content == text[: text.index(text[30:33])]
    assert answer.choices[0].finish_reason == "stop"


def test_the_newer_name_of_the_limit_is_taken(client):
    assert ask(client, max_tokens=None, max_completion_tokens=3).usage.completion_tokens == 3


def test_several_choices_differ_and_repeat_with_their_seed(client):
    def draw() -> list[str]:
        return [choice.message.content for choice in ask(client, n=3, seed=11).choices]

    assert draw() == draw()
    assert len(set(draw())) == 3


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_name_each_token_with_its_bytes(client, stream):
    answer = ask(client, logprobs=True, top_logprobs=4, stream=stream, temperature=0)
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    tokens = [token for choice in choices for token in choice.logprobs.content]
    said = "".join(choice.delta.content if stream else choice.message.content for choice in choices)
    assert "".join(token.token for token in tokens) == said
    assert bytes(byte for token in tokens for byte in token.bytes).decode() == said
    for token in tokens:
        assert len(token.top_logprobs) == 4
        assert token.top_logprobs[0].logprob == token.logprob <= 0
        assert sum(math.exp(each.logprob) for each in token.top_logprobs) <= 1.001


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_follows_the_schema(client, stream):
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    answer = ask(client, response_format=wanted, max_tokens=200, stream=stream)
    if stream:
        text = "".join(chunk.choices[0].delta.content for chunk in answer)
    else:
        text = answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"
    thing = json.loads(text)
    assert thing.keys() == {"colour", "count", "ok"}
    assert thing["colour"] in ("red", "green")
    assert thing["count"] in (1, 2, 3)


def test_a_schema_that_cannot_be_followed_is_refused_by_the_fields_name(client):
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"uniqueItems": True}}}
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as caught:
        ask(client, response_format=wanted)
    assert caught.value.param == "response_format"


def test_each_choice_follows_the_schema_by_itself(client):
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}
    answer = ask(client, response_format=wanted, max_tokens=200, n=4, seed=1)
    assert all(
        json.loads(choice.message.content).keys() == SCHEMA["properties"].keys() for choice in answer.choices
    )


def test_any_object_is_an_object(client, model):
    (closing,) = model.encode("}")
    answer = ask(client, response_format={"type": "json_object"}, logit_bias={str(closing): 100})
    assert json.loads(answer.choices[0].message.content) == {}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "text",
        ),
        ({"messages": [{"role": "user", "content": "refuse me"}]}, "not that"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice: not supported"),
        ({"modalities": ["audio"]}, "modalities: not supported"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tool_calls: not supp"),
        ({"top_logprobs": 2}, "goes with 'logprobs'"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "wat"}},
                }
            },
            "Invalid type: wat",
        ),
        ({"messages": [{"role": "user", "content": "x" * 20_000}]}, "shorten it"),
    ],
)
def test_what_cannot_be_done_is_refused_and_says_why(client, more, message):
    with pytest.raises(openai.BadRequestError, match=message):
        ask(client, **more)


def test_a_model_that_does_not_generate_says_where_to_ask_it(client):
    with pytest.raises(openai.BadRequestError, match="/predict/digits-tiny"):
        ask(client, model="digits-tiny")
