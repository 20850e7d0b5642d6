"""How often this machine takes a core away from a program that wants to run on it.

    python benchmarks/stalls.py

A process that only reads the clock finds gaps in its time where something else ran. With as many of them as
there are cores, that is what a server and its client live with; percentiles of some milliseconds are the
machine's then, and not the server's.
"""

import multiprocessing
import time

from runtime.session import available_cores

# Far longer than reading the clock takes, and than most interrupts.
GAP = 0.001


def stalls(seconds: float = 3.0) -> str:
    """What a process on each core at the same time finds, in words."""
    cores = available_cores()
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        gaps = [gap for found in pool.map(_gaps, [seconds] * cores) for gap in found]
    rate = len(gaps) / (seconds * cores)
    return (
        f"{rate:.1f} a second of over {1000 * GAP:.0f} ms, the longest {1000 * max(gaps, default=0):.1f} ms"
    )


def _gaps(seconds: float) -> list[float]:
    last = started = time.perf_counter()
    found = []
    while last - started < seconds:
        now = time.perf_counter()
        if now - last > GAP:
            found.append(now - last)
        last = now
    return found


if __name__ == "__main__":
    print(stalls())
