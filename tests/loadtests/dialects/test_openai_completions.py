import json

import pytest

from loadtests.dialects.openai_completions import CompletionsRequest, calls, chosen_text
from loadtests.dialects.token_stream import TokenStream
from loadtests.errors import BadAnswer


def request(**changes):
    keys = {"dialect": "openai-completions", "model": "m", "prompts": ["p"]}
    return CompletionsRequest.model_validate(keys | changes)


def event(document):
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def token(text):
    return event({"choices": [{"text": text}]})


def read(*chunks):
    reader = TokenStream(chosen_text)
    for number, chunk in enumerate(chunks):
        reader.feed(chunk, float(number))
    return reader.finish()


def test_the_body_carries_every_setting_and_the_extra_body_wins():
    call = calls(request(max_tokens=7, temperature=0.5, extra_body={"ignore_eos": True, "max_tokens": 9}))[0]
    assert (call.method, call.path) == ("POST", "/v1/completions")
    assert json.loads(call.body[0]) == {
        "model": "m",
        "prompt": "p",
        "max_tokens": 9,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


@pytest.mark.parametrize("changes", [{"stream": False}, {"include_usage": False}])
def test_usage_is_asked_for_only_in_a_stream_that_wants_it(changes):
    assert "stream_options" not in json.loads(calls(request(**changes))[0].body[0])


def test_the_first_token_is_the_first_that_is_not_empty():
    answer = read(token(""), token("a"), token("b"), b"data: [DONE]\n\n")
    assert answer.token_times == (1.0, 2.0)
    assert answer.tokens == 2


def test_the_servers_usage_counts_the_tokens_where_it_is_given():
    usage = event({"choices": [], "usage": {"completion_tokens": 5}})
    assert read(token("ab"), token("cde"), usage, b"data: [DONE]\n\n").tokens == 5


@pytest.mark.parametrize("count", [-5, 10**13, None, 1.5])
def test_a_usage_that_can_be_no_count_is_not_believed(count):
    usage = event({"choices": [], "usage": {"completion_tokens": count}})
    assert read(token("ab"), token("cde"), usage, b"data: [DONE]\n\n").tokens == 2


def test_an_error_of_null_is_none():
    chunk = event({"error": None, "choices": [{"text": "a"}]})
    assert read(chunk, b"data: [DONE]\n\n").tokens == 1


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([token("a")], "truncated"),
        ([b"data: [DONE]\n\n"], "bad_body"),
        ([b"data: {oops\n\n"], "bad_body"),
        ([b"data: 3\n\n"], "bad_body"),
        ([token("a"), event({"error": {"message": "out of memory"}})], "error_in_stream"),
    ],
)
def test_a_stream_that_is_not_whole_is_no_answer(chunks, kind):
    with pytest.raises(BadAnswer) as caught:
        read(*chunks)
    assert caught.value.kind == kind


def test_a_whole_completion_must_hold_text():
    def read_whole(text):
        reader = calls(request(stream=False))[0].new_reader()
        reader.feed(text, 0.0)
        return reader.finish()

    whole = b'{"choices": [{"text": "hi"}], "usage": {"completion_tokens": 2}}'
    assert read_whole(whole).tokens == 2
    for text in (b'{"choices": []}', b"[]", b"hello"):
        with pytest.raises(BadAnswer):
            read_whole(text)
