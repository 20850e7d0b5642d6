import asyncio
import os
import resource

from aiohttp import web

from loadtests import address
from loadtests.client import Client
from loadtests.monitor import Observed, listeners, watching
from loadtests.result import build
from loadtests.session import run

TEXT = "# TYPE http_requests_total counter\nhttp_requests_total {}\n"


def test_a_servers_own_count_is_read_before_and_after(serve, scenario):
    async def answer(request):
        if request.path == "/metrics":
            return web.Response(text=TEXT.format(server.requests - server.scrapes))
        return web.Response()

    async def counting(request):
        server.scrapes += request.path == "/metrics"
        return await answer(request)

    server = serve(counting)
    server.scrapes = 0
    watched = scenario(metrics="/metrics")
    result = build(watched, server.url, run(watched, server.url))
    assert result.server.scrapes >= 2
    (found,) = result.server.reconciled
    assert (found.clients, found.server, found.agree) == (10, 10, True)
    # The fake server is this very process, and other tests may have left it children.
    assert result.server.processes >= 1
    assert result.server.memory_bytes > 0


def test_a_server_without_metrics_is_measured_all_the_same(serve, scenario):
    async def answer(request):
        return web.Response(status=404 if request.path == "/metrics" else 200)

    server, watched = serve(answer), scenario(metrics="/metrics")
    result = build(watched, server.url, run(watched, server.url))
    # Whether it was sent on time is this machine's affair.
    assert result.outcome != "fail"
    assert (result.summary.requests, result.summary.failed) == (10, 0)
    assert (result.server.scrapes, result.server.reconciled) == (0, [])


def test_the_process_that_listens_is_found_and_only_on_this_machine(serve):
    async def answer(request):
        return web.Response()

    found = listeners(address.parse(serve(answer).url))
    assert os.getpid() in {process.pid for process in found}
    assert listeners(address.parse("http://192.0.2.1:80")) == []


def test_a_generator_without_a_file_left_still_ends_its_run(serve):
    async def answer(request):
        return web.Response()

    async def watch():
        async with Client(address.parse(server.url)) as client, watching(client, None, observed):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))

    server, observed = serve(answer), Observed()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        asyncio.run(watch())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(observed.usage) == 1
