"""Streaming text: tokens a second through HTTP beside the engine's own, the same prompts and slots."""

import asyncio
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from serving_report import say
from serving_servers import ours

from runtime.bundle import Bundle
from runtime.model import TextModel
from runtime.sampling import SamplingParams
from runtime.scheduler import Request

CLIENTS = 8
TOKENS = 192
PROMPT = "def main("


def streaming(folder: Path, rounds: int = 3) -> None:
    """Both rates, the best of interleaved rounds."""
    bundle = Bundle.open(folder)
    model = TextModel(bundle)
    pairs = []
    with ours(folder) as (url, _):
        asyncio.run(through_http(url, bundle.manifest.tag))
        for _ in range(rounds):
            pairs.append((by_itself(model), asyncio.run(through_http(url, bundle.manifest.tag))))
    own, http = (max(column) for column in zip(*pairs, strict=True))
    say(
        f"streaming     engine {own:.0f} tokens/s   through HTTP {http:.0f} tokens/s   "
        f"ratio {http / own:.2f} (bar 0.95), {CLIENTS} clients"
    )


def by_itself(model: TextModel) -> float:
    """Tokens a second of the scheduler alone."""
    scheduler = model.scheduler(CLIENTS)
    params = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True)
    for index in range(CLIENTS):
        scheduler.add(Request(str(index), model.encode(PROMPT), params))
    started, count = time.perf_counter(), 0
    while scheduler.has_work:
        count += sum(event.token_id is not None for event in scheduler.step())
    return count / (time.perf_counter() - started)


async def through_http(url: str, tag: str) -> float:
    """Tokens a second of as many streams at once."""
    body = {"model": tag, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    request = json.dumps(body | {"stream": True}).encode()
    started = time.perf_counter()
    await asyncio.gather(*(_stream(url, request) for _ in range(CLIENTS)))
    return CLIENTS * TOKENS / (time.perf_counter() - started)


async def _stream(url: str, body: bytes) -> None:
    """One stream to its end. Reading raw bytes: the client shares the server's cores."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await reader.readuntil(b"data: [DONE]")
    writer.close()
