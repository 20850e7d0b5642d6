"""One line of JSON per request, on standard error: who asked what, who answered, how, and how long it took.

No header, no query and no body is ever written, so no key and no prompt is. The trade-off: the lines do not
go through `logging`, whose records take three times as long as all of this.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.types import Scope

from service.context import RequestContext
from service.json_response import dumps

LONGEST_PATH = 200

_enabled = False


class Over(NamedTuple):
    """A request that is over, and the seconds that it took."""

    scope: Scope
    request: RequestContext
    status: int
    seconds: float


def configure(enabled: bool) -> None:
    """Write the lines, or do not."""
    global _enabled
    _enabled = enabled


def write(over: Sequence[Over]) -> None:
    """The lines of requests that have just ended; `time` is in seconds since 1970."""
    if not _enabled:
        return
    now = round(time.time(), 3)
    lines = [dumps(_line(each, now)) for each in over]
    # One call for whole lines, so that those of several workers do not mix.
    os.write(sys.stderr.fileno(), b"\n".join(lines) + b"\n")


def _line(over: Over, now: float) -> dict[str, Any]:
    scope, request = over.scope, over.request
    line = {
        "time": now,
        "request_id": request.id,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        "status": over.status,
        "seconds": round(over.seconds, 6),
    }
    if manifest := request.manifest:
        line |= {"model": manifest.tag, "version": manifest.version}
    if request.key:
        line["key"] = request.key.name
    return line
