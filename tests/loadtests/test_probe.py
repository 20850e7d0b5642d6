import asyncio

import pytest
from aiohttp import web

from loadtests.errors import ProbeFailed
from loadtests.session import run


def refusal(scenario, url):
    with pytest.raises(ProbeFailed) as caught:
        run(scenario, url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answering(status, text=""):
    async def handler(request):
        return web.Response(status=status, text=text)

    return handler


@pytest.mark.parametrize(
    ("status", "text", "complaint"),
    [
        (404, "no\n model", "answered 404, no such model or path (oip-infer lenet6): no model"),
        (401, "", "refused us (401): put its key into MODELPRESS_API_KEY"),
        (503, "loading", "answered 503 to the probe (oip-infer lenet6): loading"),
        (200, "<html>", "does not answer as oip-infer lenet6 should (bad_body)"),
    ],
)
def test_a_server_that_refuses_is_reported_in_one_line(serve, scenario, status, text, complaint):
    mix = [{"dialect": "oip-infer", "model": "lenet6", "inputs": [{"name": "x", "shape": [1]}]}]
    server = serve(answering(status, text))
    assert complaint in refusal(scenario(mix=mix), server.url)
    assert server.requests == 1


def test_a_server_that_is_not_there_is_reported(serve, scenario):
    server = serve(answering(200))
    server.close()
    assert refusal(scenario(), server.url) == f"cannot reach {server.url}: Connection refused"


def test_a_server_that_does_not_answer_is_reported(serve, scenario):
    async def never(request):
        await asyncio.Event().wait()

    message = refusal(scenario(timeout=0.2), serve(never).url)
    assert "did not answer within the timeout of 0.2 s" in message


def test_every_entry_of_the_mix_is_probed_once(serve, scenario):
    asked = []

    async def answer(request):
        asked.append(request.path)
        return web.Response(status=404 if request.path == "/b" and len(asked) > 1 else 200)

    mix = [{"dialect": "http", "path": "/a"}, {"dialect": "http", "path": "/b"}]
    assert "/b answered 404" in refusal(scenario(mix=mix), serve(answer).url)
    assert asked == ["/a", "/b"]
