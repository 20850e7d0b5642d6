"""glibc's allocator, told to keep the pages of freed tensors while a training runs.

A step frees and allocates the same large tensors (logits above all), and by default each of them is a fresh
mapping whose pages fault in anew: measured, 25 to 60% of a small decoder's tokens per second on two cores.
The trade-off: the process holds on to its peak memory until the run ends. Elsewhere than on glibc nothing
happens.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3). Setting them ends glibc's own tuning, so what is restored is where that tuning
# ends up in a program of large arrays: DEFAULT_MMAP_THRESHOLD_MAX on 64 bits, and twice that.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
USUAL_TRIM, USUAL_MMAP = 64 * 2**20, 32 * 2**20
KEEP_TRIM, KEEP_MMAP = 2**31 - 1, 2**30


@contextmanager
def kept_pages() -> Iterator[None]:
    """Freed memory stays with the process within this context, and goes back to the system at its end."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    _set_thresholds(libc, KEEP_TRIM, KEEP_MMAP)
    try:
        yield
    finally:
        _set_thresholds(libc, USUAL_TRIM, USUAL_MMAP)
        libc.malloc_trim(0)


def _set_thresholds(libc: ctypes.CDLL, trim: int, mmap: int) -> None:
    libc.mallopt(M_TRIM_THRESHOLD, trim)
    libc.mallopt(M_MMAP_THRESHOLD, mmap)
