"""The fields that completions and chat share, without a server."""

import math

from service.openai.completions import CompletionBody
from service.pool import SMALL


def body(**fields: object) -> CompletionBody:
    return CompletionBody.model_validate({"model": "m", "prompt": "p", **fields})


def test_a_short_prompt_is_prepared_at_once_and_a_long_one_or_a_grammar_in_a_thread():
    assert body().effort(500) <= SMALL
    assert body().effort(5000) > SMALL
    assert body(response_format={"type": "json_object"}).effort(1) == math.inf
