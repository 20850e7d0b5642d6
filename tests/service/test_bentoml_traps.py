"""What bites in BentoML itself, and does not bite here.

Each trap is a test. Others stand where the part is tested that avoids them: raw paths as labels and gauges
of several workers (test_metrics.py, test_operations.py), an error in a layer that leaves the client waiting
and abandoned streams that nobody counts (test_middleware.py), batches computed for clients that left
(test_batcher.py), slots kept by streams that were left (test_engine.py), 429 without Retry-After, SIGTERM and
workers that die (test_operations.py), tasks forgotten at a restart (jobs/test_jobs.py).
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx

PIXELS = {"pixels": [[255]]}


def python(environment: dict[str, str], *lines: str) -> str:
    """What a program in a process of its own prints."""
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.check_output(command, env=environment, text=True, timeout=60).strip()


def test_requests_that_ran_together_keep_their_own_context(server):
    """In a batchable API `ctx.request` is the first request that the worker ever saw."""

    def ask(index: int) -> bool:
        name = f"r{index}"
        answer = httpx.post(
            f"{server.url}/predict/digits-tiny", json=PIXELS, headers={"X-Request-ID": name}, timeout=30
        )
        return answer.headers["X-Request-ID"] == name and answer.status_code == 200

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(32)))


def test_a_readiness_probe_that_raises_is_answered(environment):
    """An exception in `__is_ready__` leaves the client hanging until the timeout."""
    status = python(
        environment,
        "import asyncio, httpx",
        "from service import service",
        "service.app.state.catalog = None",
        "async def main():",
        "    transport = httpx.ASGITransport(service.asgi())",
        "    async with httpx.AsyncClient(transport=transport, base_url='http://127.0.0.1') as client:",
        "        print((await client.get('/readyz', timeout=10)).status_code)",
        "asyncio.run(main())",
    )
    assert status in ("500", "503")


def test_an_answer_that_takes_long_is_not_cut_by_a_timeout_of_bentomls(environment):
    """Its timeout covers the first byte only, runs a second task for each request, and ends no work."""
    layers = python(
        environment,
        "from service import service",
        "from starlette.applications import Starlette",
        "app = service.asgi()",
        "while not isinstance(app, Starlette): app = app.app",
        "print([each.cls.__name__ for each in app.user_middleware])",
    )
    assert "TimeoutMiddleware" not in layers
    assert "OpenTelemetryMiddleware" not in layers


def test_a_busy_server_says_what_is_the_matter(server):
    """Bodies of its 503 say only "unexpected error"."""
    answer = server.http.post("/predict/digits-tiny", json=PIXELS, headers={"X-Request-Timeout": "0.0000001"})
    assert answer.status_code == 429
    assert "digits-tiny would answer in" in answer.json()["error"]


def test_nothing_is_reported_to_bentoml(environment):
    """It reports usage unless it is told not to."""
    told = {name: value for name, value in environment.items() if name != "BENTOML_DO_NOT_TRACK"}
    shown = python(
        told,
        "import socket, os",
        "from service import server",
        "from service.settings import Settings",
        "try: server.run(socket.socket(), Settings(bundles=('/nothing',)), print)",
        "except Exception: print(os.environ['BENTOML_DO_NOT_TRACK'])",
    )
    assert shown == "True"
