"""How much one key may ask at once and a second: a count, and a token bucket. It knows no key's secret."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from service.errors import RateLimited
from service.keys import Key

# A bucket holds what may come in this many seconds at once.
BURST_SECONDS = 1.0


@dataclass(slots=True)
class _Use:
    active: int = 0
    tokens: float = 0.0
    filled: float = 0.0


class Quotas:
    """Every key's use. `concurrency` and `rate` are what a key without limits of its own may have."""

    def __init__(
        self, concurrency: int | None, rate: float | None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._concurrency, self._rate, self._clock = concurrency, rate, clock
        self._uses: dict[str, _Use] = {}

    def take(self, key: Key) -> None:
        """Begin a request; `give_back` ends it. Raises RateLimited, and then there is nothing to end."""
        use = self._uses.setdefault(key.name, _Use(tokens=float("inf")))
        concurrency, rate = key.concurrency or self._concurrency, key.rate or self._rate
        if concurrency is not None and use.active >= concurrency:
            raise RateLimited(f"key '{key.name}' has {use.active} requests in hand, which is its limit")
        if rate is not None:
            self._draw(use, rate, key)
        use.active += 1

    def give_back(self, key: Key) -> None:
        """End a request that `take` began."""
        self._uses[key.name].active -= 1

    def _draw(self, use: _Use, rate: float, key: Key) -> None:
        now, full = self._clock(), max(1.0, rate * BURST_SECONDS)
        use.tokens = min(full, use.tokens + (now - use.filled) * rate)
        use.filled = now
        if use.tokens < 1:
            raise RateLimited(
                f"key '{key.name}' may send {rate:g} requests a second", (1 - use.tokens) / rate
            )
        use.tokens -= 1
