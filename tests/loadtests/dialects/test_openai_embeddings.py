import json

import pytest

from loadtests.dialects.openai_embeddings import EmbeddingsRequest, calls
from loadtests.errors import BadAnswer


def request(**changes):
    keys = {"dialect": "openai-embeddings", "model": "m", "prompts": ["a", "b", "c"]}
    return EmbeddingsRequest.model_validate(keys | changes)


def test_every_call_carries_a_batch_of_texts():
    found = calls(request(batch=2))
    assert [json.loads(call.body[0])["input"] for call in found] == [["a", "b"], ["b", "c"], ["c", "a"]]
    assert {call.rows for call in found} == {2}


def test_there_must_be_a_vector_for_each_text():
    def read(vectors):
        reader = calls(request(batch=2))[0].new_reader()
        reader.feed(json.dumps({"data": [{"embedding": [0.5]}] * vectors}).encode(), 0.0)
        return reader.finish()

    assert read(2).tokens is None
    for vectors in (0, 1, 3):
        with pytest.raises(BadAnswer, match="not 2 embeddings"):
            read(vectors)
