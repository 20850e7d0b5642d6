import asyncio

import pytest
from aiohttp import web

from loadtests import address
from loadtests.client import Client
from loadtests.discover import discover
from loadtests.errors import ProbeFailed

MODELS = {"data": [{"id": "m"}]}


def answering(**routes):
    """Answers `path` with a document and everything else with 404; `v1_models` is /v1/models."""

    async def handler(request):
        document = routes.get(request.path.strip("/").replace("/", "_"))
        if isinstance(document, web.Response):
            return document
        return web.json_response(document, status=404 if document is None else 200)

    return handler


def find(url, model=None):
    return asyncio.run(discover(Client(address.parse(url)), model))


STREAM = b'data: {"choices": [{"text": "a", "delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n'


def stream():
    return web.Response(body=STREAM)


def test_a_server_of_completions(serve):
    found = find(serve(answering(v1_models=MODELS, v1_completions=stream())).url)
    assert (found.dialect, found.model) == ("openai-completions", "m")


def test_a_server_that_only_chats(serve):
    found = find(serve(answering(v1_models=MODELS, v1_chat_completions=stream())).url)
    assert found.dialect == "openai-chat"


def test_a_server_of_embeddings(serve):
    vectors = {"data": [{"embedding": [0.5]}]}
    found = find(serve(answering(v1_models=MODELS, v1_embeddings=vectors)).url)
    assert found.dialect == "openai-embeddings"


def test_a_server_of_tensors_is_asked_what_its_metadata_say(serve):
    metadata = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]}
    outputs = {"outputs": [{"name": "y"}]}
    server = serve(answering(v2_models_n=metadata, v2_models_n_infer=outputs))
    found = find(server.url, "n")
    assert found.dialect == "oip-infer"
    assert (found.inputs[0].name, found.inputs[0].shape) == ("x", (1, 3))


def test_what_speaks_nothing_we_know_is_plain_http(serve):
    async def answer(request):
        return web.Response(text="hello", status=200 if request.path == "/" else 404)

    assert find(serve(answer).url).target == "GET /"


@pytest.mark.parametrize(
    ("handler", "model", "complaint"),
    [
        (answering(v1_models=web.Response(status=401)), None, "refused us (401): put its key into"),
        (answering(v1_models=MODELS), "other", "nothing that we know to ask for; it has the models m"),
        (answering(), None, "answers nothing that we know to ask for"),
    ],
)
def test_a_server_that_cannot_be_asked_is_one_line(serve, handler, model, complaint):
    with pytest.raises(ProbeFailed) as caught:
        find(serve(handler).url, model)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_there(serve):
    server = serve(answering())
    server.close()
    with pytest.raises(ProbeFailed, match="cannot reach"):
        find(server.url)


def test_a_name_that_is_none():
    with pytest.raises(ProbeFailed, match="cannot reach"):
        find("http://nowhere.invalid:1")


@pytest.mark.parametrize("described", [None, 5, [{"name": "x", "datatype": "FP32", "shape": None}, 7]])
def test_metadata_of_another_form_describe_nothing(serve, described):
    server = serve(answering(v2_models_n={"inputs": described}))
    with pytest.raises(ProbeFailed, match="answers nothing that we know to ask for"):
        find(server.url, "n")
