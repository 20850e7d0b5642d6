"""Streaming text: tokens a second through HTTP beside the engine's own, the same prompts and slots.

A small model's token costs the engine little more than the event loop; one of a realistic size shows what a
deployment would see. Once all clients begin at one moment and have one stream each, and once each has
several, one after another. The rounds alternate, and the ratio is taken within each.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import uvloop
from placement import clients
from serving_report import say
from serving_servers import ours

from runtime.bundle import Bundle, write_bundle
from runtime.manifest import DecoderGraph, GenerationProcessing, Lineage, Manifest, Signature
from runtime.model import TextModel
from runtime.sampling import SamplingParams
from runtime.scheduler import Request

CLIENTS = 8
# Each client's, one after another.
STREAMS = (1, 4)
PROMPT = "def main("
# About two seconds of the engine's time, and never more than a context of 256 holds.
SECONDS, MOST_TOKENS, FEWEST_TOKENS = 2.0, 192, 16
CONTEXT = 512


def streaming(folders: Sequence[Path], rounds: int = 5) -> None:
    """Both rates for each model: the median of interleaved rounds' ratios."""
    with tempfile.TemporaryDirectory() as temporary:
        for index, folder in enumerate(folders):
            bundle = text_bundle(folder, Path(temporary) / str(index))
            with ours(bundle.path) as (url, process):
                _streaming(bundle, url, process, rounds)


def _streaming(bundle: Bundle, url: str, process: psutil.Process, rounds: int) -> None:
    model, tag = TextModel(bundle), bundle.manifest.tag
    by_itself(model, FEWEST_TOKENS)
    tokens = int(SECONDS * by_itself(model, FEWEST_TOKENS) / CLIENTS)
    tokens = max(FEWEST_TOKENS, min(MOST_TOKENS, tokens))
    through_http(url, tag, tokens)
    for streams in STREAMS:
        pairs, started = [], _processor_seconds(process)
        for _ in range(rounds):
            own = by_itself(model, tokens, streams)
            pairs.append((own, through_http(url, tag, tokens, streams)))
        spent = (_processor_seconds(process) - started) / (rounds * tokens * CLIENTS * streams)
        own, http = sorted(pairs, key=lambda pair: pair[1] / pair[0])[rounds // 2]
        say(
            f"streaming     {tag}, {streams} a client: engine {own:.0f} tokens/s   through HTTP {http:.0f} "
            f"tokens/s   ratio {http / own:.2f} (bar 0.95), {CLIENTS} clients; the server's processor time "
            f"{1e6 * spent:.0f} us a token, the engine's included"
        )


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def text_bundle(folder: Path, target: Path) -> Bundle:
    """The bundle in `folder`; or one made at `target` of a decoder that `decode.py` converted there."""
    if not (folder / "graph.json").exists():
        return Bundle.open(folder)
    described = json.loads((folder / "graph.json").read_text())
    graph = DecoderGraph.model_validate(described["graph"]).model_copy(update={"context_length": CONTEXT})
    manifest = Manifest(
        name=folder.parent.name,
        variant=folder.name.rpartition("-")[2],
        task="text-generation",
        signature=Signature.model_validate(described["signature"]),
        processing=GenerationProcessing(),
        graph=graph,
        lineage=Lineage(source="benchmarks/decode.py"),
    )
    files = {path.name: path for path in folder.iterdir() if path.name != "graph.json"}
    return write_bundle(target, manifest, files | {"tokenizer.json": folder.parent / "tokenizer.json"})


def by_itself(model: TextModel, tokens: int, streams: int = 1) -> float:
    """Tokens a second of the scheduler alone."""
    scheduler = model.scheduler(CLIENTS)
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    for index in range(CLIENTS * streams):
        scheduler.add(Request(str(index), model.encode(PROMPT), params))
    started, count = time.perf_counter(), 0
    while scheduler.has_work:
        count += sum(event.token_id is not None for event in scheduler.step())
    return count / (time.perf_counter() - started)


def through_http(url: str, tag: str, tokens: int, streams: int = 1) -> float:
    """Tokens a second of as many clients at once."""
    with clients():
        return uvloop.run(_through_http(url, tag, tokens, streams))


async def _through_http(url: str, tag: str, tokens: int, streams: int) -> float:
    body = {"model": tag, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    request = json.dumps(body | {"stream": True}).encode()
    started = time.perf_counter()
    await asyncio.gather(*(_client(url, request, streams) for _ in range(CLIENTS)))
    return CLIENTS * streams * tokens / (time.perf_counter() - started)


async def _client(url: str, body: bytes, streams: int) -> None:
    """Streams to their ends. Reading raw bytes: the client shares the server's cores."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    for _ in range(streams):
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        # The end of a chunked answer.
        await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
