"""vLLM's `structured_outputs`, asked for by the unmodified `openai` client as vLLM documents it."""

import json
import math
import re
from typing import Any

import openai
import pytest

from service.openai.completions import CompletionBody

MODEL = "chatter-tiny"
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
STRICT = SCHEMA | {"additionalProperties": False}
SQL = """
    root ::= select_statement
    select_statement ::= "SELECT " column " from " table
    column ::= "col_1" | "col_2"
    table ::= "table_" [1-9]
"""
FORMS = [
    ({"regex": r"[a-f]{2,5}@\w{3}\.com"}, r"[a-f]{2,5}@\w{3}\.com"),
    ({"choice": ["positive", "negative (or so)"]}, r"positive|negative \(or so\)"),
    ({"grammar": SQL}, r"SELECT col_[12] from table_[1-9]"),
    ({"grammar": 'start: "<" /[0-9]{3}/ ">"'}, r"<[0-9]{3}>"),
    ({"json": STRICT}, r'\{"ok": (true|false)\}'),
    ({"json": json.dumps(STRICT)}, r'\{"ok": (true|false)\}'),
]
# Costs more with each letter.
ENDLESS = {"grammar": 'start: s\ns: s s s | s s | "x" | ""'}


def complete(client: openai.OpenAI, form: Any, **more: Any) -> Any:
    extra = {"structured_outputs": form, **more.pop("extra", {})}
    return client.completions.create(
        **({"model": MODEL, "prompt": "hello", "max_tokens": 100} | more), extra_body=extra
    )


@pytest.mark.parametrize(("form", "pattern"), FORMS)
def test_a_completion_follows_the_form(client, form, pattern):
    answer = complete(client, form, n=2)
    for choice in answer.choices:
        assert re.fullmatch(pattern, choice.text)
        assert choice.finish_reason == "stop"


@pytest.mark.parametrize(("form", "pattern"), FORMS[:3])
def test_a_conversation_follows_the_form(client, form, pattern):
    chunks = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=100,
        stream=True,
        extra_body={"structured_outputs": form},
    )
    assert re.fullmatch(pattern, "".join(chunk.choices[0].delta.content for chunk in chunks))


def test_any_object_is_an_object(client):
    answer = complete(client, {"json_object": True}, max_tokens=3)
    assert answer.choices[0].text.startswith("{")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"regex": "[ab"}, "structured_outputs.regex: .*unclosed character class"),
        ({"regex": "(?=a)b"}, "structured_outputs.regex: .*look-around"),
        ({"regex": "a" * 5000}, "the regular expression has 5,000 characters; send at most 4,096"),
        ({"regex": ".?" * 2048}, "structured_outputs.regex: the output format cannot be used"),
        ({"grammar": "start: missing"}, 'structured_outputs.grammar: .*unknown name: "missing"'),
        ({"grammar": "root ::= ("}, "structured_outputs.grammar: the grammar cannot be read"),
        ({"grammar": "root ::= " + "(" * 2000}, "nested too deeply"),
        ({"choice": []}, "structured_outputs.choice: there is nothing to choose from"),
        ({"choice": [1]}, "structured_outputs.choice.0: Input should be a valid string"),
        ({"json": "{"}, "structured_outputs.json: EOF"),
        ({"json": "[]"}, "structured_outputs.json: Input should be an object"),
        ({"json": "[" * 100_000}, "structured_outputs.json: recursion limit exceeded"),
        ({"json": {"uniqueItems": True}}, "structured_outputs.json: .*uniqueItems"),
        ({}, "structured_outputs: ask for exactly one of"),
        ({"json_object": False}, "structured_outputs: ask for exactly one of"),
        ({"regex": "a", "choice": ["a"]}, "structured_outputs: ask for exactly one of"),
        ({"structural_tag": "{}"}, "no such field"),
    ],
)
def test_a_form_that_cannot_be_used_is_refused_in_words(client, form, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        complete(client, form)
    assert caught.value.param.startswith("structured_outputs")


def test_it_does_not_go_with_the_other_way_to_ask(client):
    with pytest.raises(openai.BadRequestError, match="send one of them"):
        complete(client, {"regex": "a"}, extra={"response_format": {"type": "json_object"}})
    assert (
        complete(client, {"regex": "a"}, extra={"response_format": {"type": "text"}}).choices[0].text == "a"
    )


@pytest.mark.parametrize("stream", [True, False])
def test_a_form_that_costs_more_and_more_ends_its_answer_in_words_and_no_other(client, stream):
    with pytest.raises(openai.APIError, match="the output format costs too much to follow"):
        list(complete(client, ENDLESS, max_tokens=5000, stream=stream))
    assert complete(client, {"regex": "b"}).choices[0].text == "b"


def test_what_vllm_has_removed_is_unknown(client):
    with pytest.raises(openai.BadRequestError, match="guided_regex: no such field"):
        client.completions.create(model=MODEL, prompt="a", extra_body={"guided_regex": "a"})


def test_a_form_is_compiled_in_a_thread():
    body = {"model": "m", "prompt": "p", "structured_outputs": {"regex": "a"}}
    assert CompletionBody.model_validate(body).effort(1) == math.inf


def test_it_is_described(server):
    schemas = server.http.get("/openapi.json").json()["components"]["schemas"]
    forms = schemas["StructuredOutputs"]["properties"]
    assert forms.keys() == {"regex", "choice", "grammar", "json", "json_object"}
    for body in ("CompletionBody", "ChatBody"):
        field = schemas[body]["properties"]["structured_outputs"]
        assert {"$ref": "#/components/schemas/StructuredOutputs"} in field["anyOf"]
