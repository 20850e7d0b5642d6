"""Where a run stands while it goes on: what the live view shows, and what a generator tells of its shard.

Several processes tell it in a file each, replaced twice a second; whoever shows them adds them up.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.output import write
from loadtests.pacing import now
from loadtests.recording import Recording
from loadtests.session import Watch

# The latest answers, of which the live view gives percentiles.
LATEST = 1000
TELL_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """Counts so far, the kinds of errors in the order of their coming, and the latest latencies."""

    elapsed_s: float
    sent: int
    ended: int
    failed: int
    kinds: list[str]
    latest_ms: list[float]


Look = Callable[[], Standing]


def of(recording: Recording, latest: int = LATEST) -> Standing:
    return Standing(
        elapsed_s=max(0.0, now() - recording.start),
        sent=recording.sent,
        ended=recording.ended,
        failed=recording.failed,
        kinds=list(recording.table.kinds),
        latest_ms=recording.latest_ms(latest).tolist(),
    )


def together(parts: Sequence[Standing]) -> Standing:
    """Of several generators of one plan."""
    return Standing(
        elapsed_s=max((part.elapsed_s for part in parts), default=0.0),
        sent=sum(part.sent for part in parts),
        ended=sum(part.ended for part in parts),
        failed=sum(part.failed for part in parts),
        kinds=list(dict.fromkeys(kind for part in parts for kind in part.kinds)),
        latest_ms=[latency for part in parts for latency in part.latest_ms],
    )


def telling(path: Path, latest: int = LATEST) -> Watch:
    """A watch that writes where its run stands to `path`, for `read`."""

    @contextmanager
    def watch(recording: Recording) -> Iterator[None]:
        over = threading.Event()

        def tell() -> None:
            while not over.wait(TELL_EVERY_S):
                write(json.dumps(asdict(of(recording, latest))), path, "--tell")

        teller = threading.Thread(target=tell)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    return watch


def read(paths: Sequence[Path]) -> Standing:
    """Of all who have told something yet."""
    parts = []
    for path in paths:
        with suppress(FileNotFoundError):
            parts.append(Standing(**json.loads(path.read_text(encoding="utf-8"))))
    return together(parts)
