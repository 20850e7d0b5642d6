"""How benchmarks/decode.py talks to an engine: one process each, a workload a line in, seconds a line out.

An engine's script is run as `ENGINE.py MODEL_FOLDER PRECISION THREADS`, in any environment. Only the standard
library here.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

PROMPT_TOKENS = 128
# Of 4-bit weights, wherever an engine lets one choose: a divisor of both models' widths. llama.cpp's have 32.
GROUP_SIZE = 64


class Engine(Protocol):
    """What a script implements. Times what is asked only; making room and prompts is outside the clock."""

    def prefill(self, tokens: int) -> float:
        """Seconds from a prompt of so many tokens to the logits of its last."""

    def decode(self, batch: int, steps: int) -> float:
        """Seconds of `steps` greedy steps for `batch` sequences that begin with PROMPT_TOKENS tokens each."""


def serve(make: Callable[[Path, str, int], Engine]) -> None:
    """Make the engine, say so, and answer workloads until the input ends."""
    folder, precision, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    # Libraries print, from C too: what was the standard output is ours alone from here on.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = make(folder, precision, threads)
    print(json.dumps("ready"), file=channel, flush=True)
    for line in sys.stdin:
        kind, *numbers = json.loads(line)
        seconds = getattr(engine, kind)(*numbers)
        print(json.dumps(seconds), file=channel, flush=True)


def prompt(tokens: int, row: int = 0) -> list[int]:
    """Token ids, the same for every engine, all below 4,096."""
    return [(17 * i + 31 * row + 7) % 4096 for i in range(tokens)]


def timed(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
