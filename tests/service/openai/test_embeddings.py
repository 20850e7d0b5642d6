"""Embeddings, asked for by the unmodified `openai` client: a model whose vectors are known."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import openai
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import FeedForwardGraph, Lineage, Manifest, Signature, TensorSpec, TextProcessing
from runtime.model import load_model
from service.app import create_app
from service.catalog import Catalog
from service.middleware.request_id import RequestIdMiddleware
from service.settings import Settings

INPUTS = ("input_ids", "attention_mask")
WORDS = ["one", "two", "odd"]
TABLE = np.array([[3, 4, 0], [0, 0, 2], [np.nan, 1, np.inf]], np.float32)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Each word's vector is its row of `TABLE`; a text's is the mean, of length one."""
    folder = tmp_path_factory.mktemp("embedder")
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="one")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    axes = ("batch", "sequence")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("Mul", ["rows", "column"], ["last_hidden_state"]),
        ],
        "embedder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in INPUTS],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, (*axes, 3))],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([-1]), "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    manifest = Manifest(
        name="words",
        variant="tiny",
        task="embedding",
        signature=Signature(
            inputs=tuple(TensorSpec(name=n, dtype="int64", shape=axes) for n in INPUTS),
            outputs=(TensorSpec(name="last_hidden_state", dtype="float32", shape=(*axes, 3)),),
        ),
        processing=TextProcessing(max_length=4, pooling="mean", normalize=True),
        graph=FeedForwardGraph(),
        lineage=Lineage(source="test"),
    )
    files = {name: folder / name for name in ("model.onnx", "tokenizer.json")}
    return write_bundle(folder / "words", manifest, files)


@pytest.fixture
def ask(embedder: Bundle, bundles: Path) -> Callable[..., Any]:
    """One request of the client's, straight to the app."""

    async def embed(**fields: Any) -> Any:
        loaded = [load_model(embedder), load_model(Bundle.open(bundles / "digits"))]
        app = create_app(lambda: Catalog(loaded, Settings()))
        transport = httpx.ASGITransport(RequestIdMiddleware(app))
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as http:
            client = openai.AsyncOpenAI(
                base_url="http://test/v1", api_key="none", http_client=http, max_retries=0
            )
            return await client.embeddings.create(**({"model": "words-tiny"} | fields))

    return lambda **fields: asyncio.run(embed(**fields))


@pytest.mark.parametrize("encoding", ["float", "base64", openai.NOT_GIVEN])
def test_a_texts_vector_is_the_mean_of_its_words_and_of_length_one(ask, encoding):
    answer = ask(input=["one", "one two two", "two"], encoding_format=encoding)
    means = np.array([[3, 4, 0], [1, 4 / 3, 4 / 3], [0, 0, 2]])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    vectors = [each.embedding for each in answer.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), np.float32) for vector in vectors]
    np.testing.assert_allclose(vectors, expected, rtol=1e-6)
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (5, 5)


@pytest.mark.parametrize("given", ["one two", [0, 1], [[0, 1]]])
def test_a_text_and_its_tokens_are_one_thing(ask, given):
    (only,) = ask(input=given).data
    assert only.embedding == pytest.approx(ask(input=["one two"]).data[0].embedding)


def test_token_lists_of_different_lengths_are_a_batch(ask):
    together = ask(input=[[0], [1, 1, 0]]).data
    alone = [ask(input=[row]).data[0] for row in ([0], [1, 1, 0])]
    np.testing.assert_allclose([e.embedding for e in together], [e.embedding for e in alone], rtol=1e-6)


def test_fewer_dimensions_are_the_first_ones_of_length_one_again(ask):
    (short,) = ask(input="one two", dimensions=2).data
    assert short.embedding == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("one two two two two two", "the text has 6 tokens and the model reads 4; shorten it"),
        (["one", "two two two two two"], "text 1 has 5 tokens and the model reads 4"),
        ([[1], [0] * 7], "text 1 has 7 tokens and the model reads 4"),
    ],
)
def test_a_text_that_is_too_long_is_refused_by_both_lengths(ask, given, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        ask(input=given)
    assert caught.value.code == "context_length_exceeded"
    assert "truncate_prompt_tokens" in caught.value.message


@pytest.mark.parametrize("given", ["one one one one two two", [0, 0, 0, 0, 1, 1]])
def test_whoever_says_so_gets_the_vector_of_what_is_read(ask, given):
    cut = ask(input=given, extra_body={"truncate_prompt_tokens": -1})
    assert cut.data[0].embedding == pytest.approx([0.6, 0.8, 0])
    assert cut.usage.prompt_tokens == 4


def test_nan_survives(ask):
    exact = ask(input="odd").data[0].embedding
    assert np.isnan(exact).all()
    assert ask(input="odd", encoding_format="float").data[0].embedding == [None] * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": []}, "send a text"),
        ({"input": ""}, "empty"),
        ({"input": ["one", ""]}, "text 1 is empty"),
        ({"input": [[]]}, "send a text"),
        ({"input": [9]}, "outside the vocabulary of 3"),
        ({"input": [-1]}, "outside the vocabulary"),
        ({"input": [2**70]}, "outside the vocabulary"),
        ({"input": "one", "extra_body": {"truncate_prompt_tokens": 3}}, "truncate_prompt_tokens"),
        ({"input": "one", "dimensions": 4}, "the vectors have 3"),
        ({"input": "one", "dimensions": 0}, "dimensions"),
        ({"input": "one", "model": "digits-tiny"}, "/predict/digits-tiny"),
        ({"input": "one", "encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused(ask, fields, message):
    with pytest.raises(openai.BadRequestError, match=message):
        ask(**fields)
