"""How much memory there is to plan with, and giving back what is not used. It reserves nothing."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes this process may still take: of the machine, of its cgroup (v2), and of its own limits."""
    free = [int(psutil.virtual_memory().available), *_own_limits()]
    spare = _cgroup_spare(cgroup)
    return max(0, min(free if spare is None else [*free, spare]))


def _cgroup_spare(cgroup: Path) -> int | None:
    """The cgroup's limit less what it uses and cannot give back; None without a limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return None
        spare = int(limit) - int((cgroup / "memory.current").read_text())
        figures = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # Files that nobody has looked at lately count as used and are given up when memory is wanted.
        return spare + int(figures.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def _own_limits() -> Iterator[int]:
    """What `ulimit -v` and `ulimit -d` leave, where they are set."""
    used = psutil.Process().memory_info()
    for kind, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.rss)):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            yield soft - taken


def give_back_freed() -> None:
    """Return what the C library keeps of freed memory to the operating system, where it is glibc's."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
