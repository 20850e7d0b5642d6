"""Twice as many requests as can be answered, through sockets: what is still answered in time.

A request is 64 rows of a classifier wide enough that its rows, and not the socket, are the work. Capacity is
what clients that wait for their answers get; then as many requests again are sent at fixed times, each with
a deadline, whatever becomes of the ones before.
"""

import asyncio
import tempfile
from pathlib import Path

import numpy as np
from http_load import closed, opened
from serving_model import PIXELS, write_mlp
from serving_report import say
from serving_servers import ours

WIDE = (2048, 2048, 2048, 10)
ROWS = 64
CLIENTS = 16
DEADLINE = 0.5


def overload(seconds: float, rounds: int = 3) -> None:
    """Answers in time at twice the capacity, beside the capacity that was just seen: the median of rounds."""
    rows = np.full((ROWS, PIXELS), 0.5, "f4").tolist()
    with tempfile.TemporaryDirectory() as folder:
        write_mlp(Path(folder) / "wide", WIDE)
        with ours(Path(folder) / "wide") as (url, _):
            target, body = f"{url}/v2/models/digits-fp32/infer", _body(rows)
            asyncio.run(closed(target, body, CLIENTS, seconds))
            pairs = [asyncio.run(_round(target, body, seconds)) for _ in range(rounds)]
    # A machine that slows down between two rounds must not set one's capacity against another's goodput.
    capacity, goodput = sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]
    ratios = " ".join(f"{good / whole:.2f}" for whole, good in pairs)
    say(
        f"overload      capacity {capacity:.0f}/s   goodput at twice that {goodput:.0f}/s   "
        f"ratio {goodput / capacity:.2f} (bar 0.95), the median of {ratios}; deadline {DEADLINE} s"
    )


async def _round(target: str, body: bytes, seconds: float) -> tuple[float, float]:
    capacity = (await closed(target, body, CLIENTS, 2 * seconds)).rate
    result = await opened(target, body, 2 * capacity, 2 * seconds, X_Request_Timeout=str(DEADLINE))
    return capacity, result.in_time(DEADLINE) / result.seconds


def _body(rows: list[list[float]]) -> bytes:
    import orjson

    tensor = {"name": "pixels", "shape": [ROWS, PIXELS], "datatype": "FP32", "data": rows}
    return orjson.dumps({"inputs": [tensor]})
