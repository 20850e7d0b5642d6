"""Which cores servers run on, and which their clients: on a machine with enough of them, nobody shares.

Without `split` both run where they like, as on a small machine they must. The trade-off: a client on a core
of its own says what a server does when its clients are elsewhere, and nothing of what both cost together.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"

_clients: set[int] = set()


def split(cores: int) -> str:
    """Keep this process, and all that it starts, on `cores` whole cores; the others are for clients.

    Of a core that runs two threads, one is used and the other stays idle. Returns what was done, in words.
    Exits where no core would be left.
    """
    wholes = _whole_cores(sorted(os.sched_getaffinity(0)))
    if not 0 < cores < len(wholes):
        raise SystemExit(f"--cores {cores}: of {len(wholes)} cores some must be left for the clients")
    servers = {threads[0] for threads in wholes[:cores]}
    _clients.update(threads[0] for threads in wholes[cores:])
    os.sched_setaffinity(0, servers)
    return f"servers have {cores} cores to themselves, clients {len(_clients)} others"


@contextmanager
def clients() -> Iterator[None]:
    """The calling thread is a client meanwhile."""
    if not _clients:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _clients)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _whole_cores(threads: list[int]) -> list[list[int]]:
    """The threads of each core, of those given."""
    found: dict[str, list[int]] = {}
    for thread in threads:
        path = Path(TOPOLOGY.format(thread))
        found.setdefault(path.read_text() if path.exists() else str(thread), []).append(thread)
    return list(found.values())
