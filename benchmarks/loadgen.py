"""What one generator process can send: small JSON over loopback to a server that does nothing else.

    python benchmarks/loadgen.py                              # 4,000/s for 20 s: lag, CPU, what was achieved
    python benchmarks/loadgen.py --rates 2000,4000,6000,8000  # where it ends
    python benchmarks/loadgen.py --requests 1000000           # one long run, and what it does to memory

The server is a process of its own that looks for the end of a request and writes a fixed answer, so what is
measured is the generator. Two cores are needed, and nothing else should run.
"""

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import psutil
import uvloop

from loadtests.recording import Recording
from loadtests.result import build
from loadtests.scenario import Scenario
from loadtests.session import run
from loadtests.terminal import figure

BODY = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5]}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)
INPUT = {"name": "x", "shape": [1, 8]}


class Answering(asyncio.Protocol):
    """Answers whenever a body has ended; the requests of this benchmark all fit into one packet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def server() -> Iterator[str]:
    """The address of one that runs until the body ends."""
    process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def scenario(rate: float, seconds: float) -> Scenario:
    return Scenario.model_validate(
        {
            "arrivals": {"kind": "poisson", "rate": rate},
            "duration": seconds,
            "warmup": 1,
            "metrics": None,
            "mix": [{"dialect": "oip-infer", "model": "m", "inputs": [INPUT]}],
        }
    )


@contextmanager
def memory(recording: Recording) -> Iterator[None]:
    """What the process takes when sending begins and when it ends."""
    before = psutil.Process().memory_info().rss
    yield
    after = psutil.Process().memory_info().rss
    print(
        f"memory {before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB after {recording.sent:,} requests"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", default="4000")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve())
        return
    print("    rate/s  achieved  failed  lag p50  lag p99 ms  latency p99 ms  core")
    for rate in map(float, arguments.rates.split(",")):
        with server() as url:
            seconds = arguments.requests / rate if arguments.requests else arguments.seconds
            chosen = scenario(rate, seconds)
            result = build(chosen, url, run(chosen, url, watch=memory))
        lag, latency, generator = result.summary.lag_ms, result.summary.latency_ms, result.generator
        assert lag is not None
        assert latency is not None
        print(
            f"{rate:10.0f}{generator.achieved_rps:10.0f}{result.summary.failed:8d}"
            f"{figure(lag, 'p50'):>9}{figure(lag, 'p99'):>12}"
            f"{figure(latency, 'p99'):>16}{generator.cpu_share:6.0%}  {result.outcome}"
        )


if __name__ == "__main__":
    main()
