"""How much memory there is to plan with, and giving back what is not used. It reserves nothing."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from runtime import cgroup

# What a control group may hold, what it holds, and what of it are files that nobody has looked at lately.
_NAMES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_memory(root: Path = cgroup.ROOT, own: Path = cgroup.OWN) -> int:
    """Bytes this process may still take: of the machine, of its control groups, and of its own limits."""
    spare = [each for folder in cgroup.folders("memory", root, own) for each in _spare(folder)]
    return max(0, min([int(psutil.virtual_memory().available), *_own_limits(), *spare]))


def _spare(folder: Path) -> Iterator[int]:
    """A group's limit less what it uses and cannot give back; nothing without a limit."""
    for limit, used, idle in _NAMES:
        # "max", and a group without the controller, are no limit. Idle files count as used, and are given up.
        with suppress(OSError, ValueError):
            spare = int((folder / limit).read_text()) - int((folder / used).read_text())
            figures = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            yield spare + int(figures.get(idle, 0))


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
