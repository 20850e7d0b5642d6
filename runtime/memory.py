"""How much memory there is to plan with. It reserves nothing."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes this process may still take: what the machine has, cut by the cgroup's limit (v2)."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit == "max":
            return free
        spare = int(limit) - int((cgroup / "memory.current").read_text())
        figures = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        # Files that nobody has looked at lately count as used and are given up when memory is wanted.
        spare += int(figures.get("inactive_file", 0))
    except (OSError, ValueError):
        return free
    return min(free, max(0, spare))
