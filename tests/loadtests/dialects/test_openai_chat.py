import json

import pytest

from loadtests.dialects.exchange import fill
from loadtests.dialects.openai_chat import ChatRequest, calls, said_text


def request(**changes):
    keys = {"dialect": "openai-chat", "model": "m", "prompts": ["a", "b"]}
    return ChatRequest.model_validate(keys | changes)


def test_the_body_is_a_chat_and_the_extra_body_wins():
    call = calls(request(max_tokens=7, system="short", extra_body={"temperature": 1}))[0]
    assert (call.method, call.path, call.then) == ("POST", "/v1/chat/completions", None)
    assert json.loads(call.body[0]) == {
        "model": "m",
        "max_tokens": 7,
        "temperature": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "a"}],
    }


def test_later_turns_hold_the_earlier_answers_between_what_was_asked():
    first = calls(request(turns=3))[0]
    last = first.then.then
    assert last.then is None
    messages = json.loads(fill(last.body, ['"x"', "y\n"]))["messages"]
    assert [(message["role"], message["content"]) for message in messages] == [
        ("user", "a"),
        ("assistant", '"x"'),
        ("user", "b"),
        ("assistant", "y\n"),
        ("user", "a"),
    ]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"choices": [{"delta": {"content": "a"}}]}, "a"),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, None),
        ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, "hm"),
        ({"choices": [{"message": {"content": "whole"}}]}, "whole"),
        ({"choices": []}, None),
    ],
)
def test_what_was_said_is_found_in_streams_and_whole_answers(document, text):
    assert said_text(document) == text
