"""How much one key may ask at once and a second: a count, and a token bucket. It knows no key's secret.

Several workers share a key's limits by a file for each key: who has a request in hand holds a lock on one of
its first bytes, as many as there may be, which the kernel lets go of when a worker dies. The trade-off: a
request of a limited key costs them a few system calls.
"""

import fcntl
import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from service.errors import RateLimited
from service.keys import Key

# A bucket holds what may come in this many seconds at once.
BURST_SECONDS = 1.0
# The byte whose lock guards the bucket: after those of any number of requests.
GUARD = 2**40
_BUCKET = struct.Struct("dd")


@dataclass(slots=True)
class _Bucket:
    tokens: float = math.inf
    filled: float = 0.0

    def draw(self, rate: float, now: float) -> float:
        """Take a token out: 0, or the seconds until there is one."""
        full = max(1.0, rate * BURST_SECONDS)
        self.tokens = min(full, self.tokens + (now - self.filled) * rate)
        self.filled = now
        if self.tokens < 1:
            return (1 - self.tokens) / rate
        self.tokens -= 1
        return 0.0


@dataclass(slots=True)
class _Use:
    """A key's use of the only process."""

    active: int = 0
    _bucket: _Bucket = field(default_factory=_Bucket)

    def begin(self, limit: int) -> bool:
        """One more at once, if there may be."""
        if self.active >= limit:
            return False
        self.active += 1
        return True

    def end(self) -> None:
        """One less."""
        self.active -= 1

    @contextmanager
    def bucket(self) -> Iterator[_Bucket]:
        """What may come."""
        yield self._bucket


class _SharedUse:
    """A key's use of several processes, which open the same file."""

    def __init__(self, path: Path) -> None:
        # Never closed: the first close of a file lets go of all locks that the process has on it.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._held: set[int] = set()

    def begin(self, limit: int) -> bool:
        """One more at once, if there may be."""
        # A process may lock again what it has locked, and would not notice.
        free = (place for place in range(limit) if place not in self._held)
        taken = next((place for place in free if self._lock(place)), None)
        if taken is None:
            return False
        self._held.add(taken)
        return True

    def end(self) -> None:
        """One less."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._held.pop())

    @contextmanager
    def bucket(self) -> Iterator[_Bucket]:
        """What may come; nobody else takes of it meanwhile."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, GUARD)
        try:
            kept = os.pread(self._file, _BUCKET.size, 0)
            bucket = _Bucket(*_BUCKET.unpack(kept)) if kept else _Bucket()
            yield bucket
            os.pwrite(self._file, _BUCKET.pack(bucket.tokens, bucket.filled), 0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, GUARD)

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError:
            return False
        return True


class Quotas:
    """Every key's use. `concurrency` and `rate` are what a key without limits of its own may have.

    `folder` is shared by the workers, if there are any; `clock` is the same for all of them, in seconds.
    """

    def __init__(
        self,
        concurrency: int | None,
        rate: float | None,
        folder: Path | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._concurrency, self._rate, self._clock = concurrency, rate, clock
        self._folder = folder
        self._uses: dict[str, _Use | _SharedUse] = {}

    def take(self, key: Key) -> None:
        """Begin a request; `give_back` ends it. Raises RateLimited, and then there is nothing to end."""
        limit = key.concurrency or self._concurrency
        if limit is not None and not self._use(key).begin(limit):
            raise RateLimited(f"key '{key.name}' has {limit} requests in hand, which is its limit")
        try:
            self._draw(key)
        except RateLimited:
            self.give_back(key)
            raise

    def give_back(self, key: Key) -> None:
        """End a request that `take` began."""
        if key.concurrency or self._concurrency:
            self._use(key).end()

    def _draw(self, key: Key) -> None:
        rate = key.rate or self._rate
        if rate is None:
            return
        with self._use(key).bucket() as bucket:
            wait = bucket.draw(rate, self._clock())
        if wait:
            raise RateLimited(f"key '{key.name}' may send {rate:g} requests a second", wait)

    def _use(self, key: Key) -> _Use | _SharedUse:
        if key.name not in self._uses:
            shared = self._folder and _SharedUse(self._folder / f"quota_{key.name}")
            self._uses[key.name] = shared or _Use()
        return self._uses[key.name]
