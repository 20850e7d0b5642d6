"""Twice as many requests as can be answered, through sockets: what is still answered in time.

A request is 64 rows of a classifier wide enough that its rows, and not the socket, are the work. Capacity is
what clients that wait for their answers get; then as many requests again are sent at fixed times, each with
a deadline, whatever becomes of the ones before. The client is on the same cores, and sends twice as much
then: what it takes of them is said beside.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop
from http_load import closed, opened
from serving_model import PIXELS, write_mlp
from serving_report import say
from serving_servers import ours

from runtime.session import available_cores

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
            uvloop.run(closed(target, body, CLIENTS, seconds))
            pairs = [_round(target, body, seconds) for _ in range(rounds)]
    # A machine that slows down between two rounds must not set one's capacity against another's goodput.
    capacity, goodput, *shares = sorted(pairs, key=lambda pair: pair[1] / pair[0])[len(pairs) // 2]
    ratios = " ".join(f"{good / whole:.2f}" for whole, good, *_ in pairs)
    before, after = (f"{100 * share:.1f}%" for share in shares)
    say(
        f"overload      capacity {capacity:.0f}/s   goodput at twice that {goodput:.0f}/s   "
        f"ratio {goodput / capacity:.2f} (bar 0.95), the median of {ratios}; deadline {DEADLINE} s; "
        f"the client took as much as {before} of these cores, then {after}"
    )


def _round(target: str, body: bytes, seconds: float) -> tuple[float, float, float, float]:
    """The capacity, the goodput at twice that, and what the client took at each, as a share of our cores."""
    cores, started = available_cores(), time.process_time()
    whole = uvloop.run(closed(target, body, CLIENTS, 2 * seconds))
    between = time.process_time()
    twice = uvloop.run(opened(target, body, 2 * whole.rate, 2 * seconds, X_Request_Timeout=str(DEADLINE)))
    shares = (between - started) / whole.seconds, (time.process_time() - between) / twice.seconds
    return whole.rate, twice.in_time(DEADLINE) / twice.seconds, shares[0] / cores, shares[1] / cores


def _body(rows: list[list[float]]) -> bytes:
    import orjson

    tensor = {"name": "pixels", "shape": [ROWS, PIXELS], "datatype": "FP32", "data": rows}
    return orjson.dumps({"inputs": [tensor]})
