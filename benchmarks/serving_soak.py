"""A long mix of traffic: good and bad requests, clients that leave, replacements. Nothing may break or grow.

It fails where a 5xx came, where anything is still held when the traffic has ended, or where memory grows.
"""

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import psutil
from serving_model import PIXELS, write_mlp
from serving_report import say
from serving_servers import ours

SAMPLE_SECONDS = 2.0
# Allocators give memory back late: a slope below this is noise in runs of minutes.
SLOPE_BAR = 2.0
BAD = [
    ("/v2/models/digits-fp32/infer", b"{"),
    (
        "/v2/models/digits-fp32/infer",
        b'{"inputs": [{"name": "pixels", "shape": [1, 3], "datatype": "FP32"}]}',
    ),
    ("/v2/models/nobody/infer", b'{"inputs": []}'),
    ("/predict/digits-fp32", b"\xff\xd8\xff"),
    ("/v1/completions", b'{"model": "nobody", "prompt": 3}'),
    ("/nowhere", b""),
]


@dataclass
class Soak:
    """What came back, and what the server held meanwhile."""

    url: str
    folder: Path
    text: str | None
    process: psutil.Process
    end: float
    statuses: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[float, int]] = field(default_factory=list)
    reloads: int = 0
    pause: float = 0.005


def soak(minutes: float, text: Path | None, pause: float) -> bool:
    """Run it; whether nothing was wrong. `pause` is between one answer and the same client's next request."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "digits"
        write_mlp(target)
        with ours(target, *([text] if text else [])) as (url, process):
            tag = _text_tag(text)
            state = Soak(url, target, tag, process, time.monotonic() + 60 * minutes, pause=pause)
            return asyncio.run(_run(state))


async def _run(state: Soak) -> bool:
    async with aiohttp.ClientSession(state.url) as http:
        for client in (_good, _bad):
            await client(state, http)
        await asyncio.sleep(1)
        await asyncio.sleep(1)
        before = _held(state.process) | {"tasks": await _tasks(http)}
        clients = [*[_good] * 4, _bad, _leaving]
        clients += [_streaming, _streaming, _leaving_a_stream] if state.text else []
        tasks = [asyncio.create_task(_again(client, state, http)) for client in clients]
        await asyncio.gather(*tasks, _again(_replace, state, http), _sample(state))
    await asyncio.sleep(3)
    async with aiohttp.ClientSession(state.url) as http:
        after = _held(state.process) | {"tasks": await _tasks(http)}
        left = dict(_gauges(await _metrics(http)))
    return _report(state, before, after, left)


async def _again(client: Callable[..., Awaitable[None]], state: Soak, http: aiohttp.ClientSession) -> None:
    while time.monotonic() < state.end:
        await client(state, http)
        await asyncio.sleep(state.pause)


async def _good(state: Soak, http: aiohttp.ClientSession) -> None:
    rows = random.choice((1, 1, 1, 4, 32))
    tensor = {"name": "pixels", "shape": [rows, PIXELS], "datatype": "FP32", "data": [0.5] * rows * PIXELS}
    async with http.post("/v2/models/digits-fp32/infer", json={"inputs": [tensor]}) as answer:
        await answer.read()
        state.statuses[f"good {answer.status}"] += 1


async def _bad(state: Soak, http: aiohttp.ClientSession) -> None:
    path, body = random.choice(BAD)
    async with http.post(path, data=body) as answer:
        await answer.read()
        state.statuses[f"bad {answer.status}"] += 1


async def _leaving(state: Soak, http: aiohttp.ClientSession) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(random.uniform(0.0002, 0.003)):
            await _good(state, http)
    await asyncio.sleep(0.02)


async def _streaming(state: Soak, http: aiohttp.ClientSession, tokens: int | None = None) -> None:
    body = {"model": state.text, "prompt": "def main(", "stream": True, "max_tokens": random.randint(1, 64)}
    async with http.post("/v1/completions", json=body) as answer:
        async for _line in answer.content:
            if tokens is not None and (tokens := tokens - 1) < 0:
                answer.close()
                state.statuses["left a stream"] += 1
                return
        state.statuses[f"stream {answer.status}"] += 1


async def _leaving_a_stream(state: Soak, http: aiohttp.ClientSession) -> None:
    await _streaming(state, http, random.randint(0, 12))


async def _replace(state: Soak, http: aiohttp.ClientSession) -> None:
    """Another version of the model in its place, and an alias that comes and goes."""
    state.reloads += 1
    await asyncio.to_thread(write_mlp, state.folder, seed=state.reloads % 7)
    alias = {"targets": [{"model": "digits-fp32"}]}
    for method, path, body in [
        ("POST", "/admin/models/digits-fp32/load", None),
        ("PUT", "/admin/aliases/digits", alias),
        ("POST", "/v2/repository/index", None),
        ("DELETE", "/admin/aliases/digits", None),
    ]:
        async with http.request(method, path, json=body) as answer:
            await answer.read()
            state.statuses[f"admin {answer.status}"] += 1
    await asyncio.sleep(2)


async def _sample(state: Soak) -> None:
    while time.monotonic() < state.end:
        state.samples.append((time.monotonic(), state.process.memory_info().rss))
        await asyncio.sleep(SAMPLE_SECONDS)


def _held(process: psutil.Process) -> dict[str, int]:
    return {"threads": process.num_threads(), "files": process.num_fds()}


async def _metrics(http: aiohttp.ClientSession) -> str:
    async with http.get("/metrics") as answer:
        return await answer.text()


async def _tasks(http: aiohttp.ClientSession) -> int:
    """Tasks on the server's loop, as it counted them within the last second."""
    lines = (await _metrics(http)).splitlines()
    return next(int(float(line.split()[-1])) for line in lines if line.startswith("modelpress_tasks "))


def _gauges(text: str) -> Iterator[tuple[str, float]]:
    """What must be nought when nobody asks; the scrape itself is the one request in flight."""
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name == "modelpress_requests_in_flight":
            yield name, float(value) - 1
        elif name.startswith(("modelpress_num_requests_running", "modelpress_num_requests_waiting")):
            yield name, float(value)


def _report(state: Soak, before: dict[str, int], after: dict[str, int], left: dict[str, float]) -> bool:
    half = state.samples[len(state.samples) // 2 :]
    minutes, mebibytes = np.array([(at / 60, rss / 2**20) for at, rss in half]).T
    slope = float(np.polyfit(minutes - minutes[0], mebibytes, 1)[0]) if len(half) > 2 else float("nan")
    broken = sum(count for name, count in state.statuses.items() if name[-3:].startswith("5"))
    for name, count in sorted(state.statuses.items()):
        say(f"soak          {name:16} {count:8,}")
    say(f"soak          replaced {state.reloads} times; 5xx {broken} (bar 0)")
    say(f"soak          memory {mebibytes[-1]:.0f} MiB, slope {slope:+.2f} MiB/min (bar {SLOPE_BAR})")
    # Worker threads are started when they are first needed: at most a pool's worth, each once.
    spare = 2 * (os.cpu_count() or 1) + 4
    say(f"soak          before {before}, after {after}, still held {sum(left.values()):.0f} (bar 0)")
    kept = after["files"] > before["files"] + 4 or after["threads"] > before["threads"] + spare
    # Connections that the client keeps, and a replaced model that is just being stopped.
    kept = kept or after["tasks"] > before["tasks"] + 4
    return not (broken or kept or any(left.values()) or slope > SLOPE_BAR)


def _text_tag(text: Path | None) -> str | None:
    from runtime.bundle import Bundle

    return Bundle.open(text).manifest.tag if text else None
