"""What a batch costs, as measured: seconds by rows and row length, and the batch size that pays best.

A table over powers of two, each cell an average of the latest runs, in seconds per element (one row's one
token, or one row where rows have no length). No formula is fitted: caches, threads and quantized kernels
bend the curve differently on every machine. What was never measured is taken from the nearest cell.
"""

from collections.abc import Callable

# Weight of the newest run: recent enough to follow a busy machine, slow enough to outlive one hiccup.
NEWEST = 0.2
# How fast the least time that was seen is forgotten: a machine that slowed down for good shows in 100 runs.
FORGET = 1.02
# A larger batch must be this much better per row than a smaller one to be worth its longer wait.
WORTHWHILE = 0.97
# What is settled for good is the least batch with rows that cost no more than this times the cheapest.
NEARLY = 1.05
# 65,536 elements bound a batch's memory: 512 rows of 128 tokens.
MAX_ELEMENTS = 2**16
MAX_ROWS = 2**10

Bucket = tuple[int, int]


class CostModel:
    """Seconds that a batch of `rows` rows of `length` tokens takes."""

    def __init__(self) -> None:
        self._table: dict[Bucket, float] = {}
        self._least: dict[Bucket, float] = {}
        self._nearest: dict[Bucket, Bucket] = {}
        self._best: dict[int, int] = {}
        self._settled = 0

    def observe(self, rows: int, length: int, seconds: float) -> None:
        """Take note of a run."""
        bucket, new = _bucket(rows, length), seconds / (rows * length)
        old = self._table.get(bucket)
        if old is None:
            self._nearest.clear()
        self._table[bucket] = new if old is None else old + NEWEST * (new - old)
        self._least[bucket] = new if old is None else min(new, FORGET * self._least[bucket])
        self._best.clear()

    def seconds(self, rows: int, length: int = 1) -> float:
        """The expected time of a batch; 0 before anything has run."""
        return self._seconds(self._table, rows, length)

    def work(self, rows: int, length: int = 1) -> float:
        """The time of a batch that nothing held up: lately the least one that was seen.

        A run in a thread takes as long as the interpreter is busy elsewhere. Where that decided what runs in
        a thread, a model that was there once would never come back.
        """
        return self._seconds(self._least, rows, length)

    def _seconds(self, table: dict[Bucket, float], rows: int, length: int) -> float:
        if not table:
            return 0.0
        bucket = _bucket(rows, length)
        per_element = table.get(bucket)
        if per_element is None:
            per_element = table[self._closest(bucket)]
        return per_element * rows * length

    def best_rows(self, length: int = 1) -> int:
        """The batch size with the most rows a second for rows of this length.

        A size next to the largest measured one counts as good until it has been tried, unless it was settled.
        """
        if self._settled:
            return max(1, self._settled // length)
        place = (length - 1).bit_length()
        if place not in self._best:
            self._best[place] = self._find_best(place)
        return self._best[place]

    def settle(self, length: int) -> None:
        """Keep to the least batch that was nearly the best one for rows of this length, however load is."""
        place = (length - 1).bit_length()
        known = {rows: cost for (rows, at), cost in self._table.items() if at == place}
        most = NEARLY * min(known.values())
        self._settled = length * 2 ** min(rows for rows, cost in known.items() if cost <= most)

    def _find_best(self, place: int) -> int:
        limit = max(1, min(MAX_ROWS, MAX_ELEMENTS >> place))
        known = {rows: cost for (rows, at), cost in self._table.items() if at == place}
        if not known:
            return min(limit, 8)
        best = min(known)
        for rows in sorted(known):
            if known[rows] < known[best] * WORTHWHILE:
                best = rows
        # Under load, the next size up is tried once: the table must not end where the warm-up did.
        if best == max(known):
            best += 1
        return int(min(limit, 2**best))

    def _closest(self, bucket: Bucket) -> Bucket:
        if bucket not in self._nearest:
            rows, length = bucket
            self._nearest[bucket] = min(self._table, key=lambda at: abs(at[0] - rows) + abs(at[1] - length))
        return self._nearest[bucket]


def measure(cost: CostModel, run: Callable[[int], float], *, length: int, budget: float) -> None:
    """Fill the table with doubling batches until more rows stop paying or `budget` seconds are spent.

    `run(rows)` runs a batch of rows of `length` tokens and gives the seconds that it took.
    """
    rows, spent, before = 1, run(1), float("inf")
    while rows * length <= MAX_ELEMENTS and rows <= MAX_ROWS:
        seconds = min(run(rows), run(rows))
        cost.observe(rows, length, seconds)
        spent += 2 * seconds
        if spent + 4 * seconds > budget or seconds / rows > before * 1.1:
            return
        before, rows = min(before, seconds / rows), rows * 2


def _bucket(rows: int, length: int) -> Bucket:
    return (rows - 1).bit_length(), (length - 1).bit_length()
