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
        used = int((cgroup / "memory.current").read_text())
        figures = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    # Files that nobody has looked at lately are counted as used and given up when memory is wanted.
    return min(free, max(0, int(limit) - used + int(figures.get("inactive_file", 0))))
