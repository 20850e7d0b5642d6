"""The control groups that this process is in, and how many cores they leave it: Linux's, of version 1 or 2.

It sets nothing; what memory they leave is `memory.py`'s to say. A container may see its own group as the top
of the tree, or its group's path on the host in a tree that begins with its own: every group on the way
counts, and what is not there says nothing.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores(root: Path = ROOT, own: Path = OWN) -> float | None:
    """The tightest quota, in cores; None where there is none. `own` lists this process's groups."""
    return min(_quotas(root, own), default=None)


def _quotas(root: Path, own: Path) -> Iterator[float]:
    for folder in folders("cpu", root, own):
        # "max", version 1's -1, and a group without the controller are no quota.
        with suppress(OSError, ValueError):
            quota, period = _quota(folder)
            if quota > 0 and period > 0:
                yield quota / period


def _quota(folder: Path) -> tuple[int, int]:
    """Microseconds of processor time in each so many microseconds."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota), int(period)
    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return int(quota), int(period)


def folders(controller: str, root: Path = ROOT, own: Path = OWN) -> Iterator[Path]:
    """The groups of a controller, from the process's own up to the top."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = ["0::/", f"0:{controller}:/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers if controllers else root
        steps = [step for step in PurePosixPath(path).parts if step not in ("/", "..")]
        for depth in range(len(steps), -1, -1):
            yield top.joinpath(*steps[:depth])
