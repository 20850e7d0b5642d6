"""What the service costs: requests a second beside a bare Starlette handler that does the same work.

python benchmarks/serving.py            # half a minute; the client and the servers share this machine's cores

Bars: at least 0.6 of the yardstick's rate; p99 at most 3 times p50 at half load; idle CPU under 1%.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from http_load import closed, opened

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from serving_model import PIXELS, write_mlp  # noqa: E402

VALUES = [i / PIXELS for i in range(PIXELS)]
TENSOR = {"name": "pixels", "shape": [1, PIXELS], "datatype": "FP32", "data": VALUES}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
ROUNDS = 3


def main() -> None:
    """Print each figure beside its bar."""
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=1.0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_mlp(path / "digits")
        with starlette(path / "model.onnx") as (bare, _), ours(path / "digits") as (served, process):
            rate = compare(bare, served, chosen.seconds)
            half_load(served, rate / 2, 3 * chosen.seconds)
            idle(process)


def compare(bare: str, served: str, seconds: float) -> float:
    """Rates at 1, 8 and 32 clients, the best of interleaved rounds; ours at 32."""
    best = 0.0
    for clients in (1, 8, 32):
        urls = (bare, served)
        pairs = [[asyncio.run(closed(url, BODY, clients, seconds)) for url in urls] for _ in range(ROUNDS)]
        yardstick, best = (max(result.rate for result in column) for column in zip(*pairs, strict=True))
        p99 = min(result.percentile(0.99) for _, result in pairs)
        print(
            f"{clients:3} clients   starlette {yardstick:6.0f}/s   modelpress {best:6.0f}/s   "
            f"ratio {best / yardstick:.2f} (bar 0.6)   p99 {p99:.1f} ms"
        )
    return best


def half_load(url: str, rate: float, seconds: float) -> None:
    """Latencies from the planned send times, at half of what it can do."""
    result = asyncio.run(opened(url, BODY, rate, seconds))
    p50, p99 = result.percentile(0.5), result.percentile(0.99)
    print(f"half load     {rate:.0f}/s   p50 {p50:.2f} ms   p99 {p99:.2f} ms   ratio {p99 / p50:.1f} (bar 3)")


def idle(process: psutil.Process) -> None:
    """The share of one core that it takes to do nothing."""
    process.cpu_percent()
    time.sleep(3)
    print(f"idle          {process.cpu_percent():.1f}% of a core (bar 1)")


@contextmanager
def starlette(model: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The yardstick."""
    script = Path(__file__).parent / "serving_peers" / "starlette_app.py"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, script, model, str(port)]) as process:
        try:
            _wait(port)
            yield f"http://127.0.0.1:{port}/infer", psutil.Process(process.pid)
        finally:
            process.terminate()


@contextmanager
def ours(bundle: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`modelpress serve`, with its request log going to nowhere."""
    command = [sys.executable, "-m", "service.cli", "serve", str(bundle), "--port", "0", "--json"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            yield f"{url}/v2/models/digits-fp32/infer", psutil.Process(process.pid)
        finally:
            process.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the yardstick did not start")


if __name__ == "__main__":
    main()
