"""One line of JSON per request, on standard error: who asked what, who answered, how, and how long it took.

No header, no query and no body is ever written, so no key and no prompt is. The trade-off: the lines do not
go through `logging`, whose records take three times as long as all of this.
"""

import os
import sys
import time

from starlette.types import Scope

from service.context import RequestContext
from service.json_response import dumps

LONGEST_PATH = 200

_enabled = False


def configure(enabled: bool) -> None:
    """Write the lines, or do not."""
    global _enabled
    _enabled = enabled


def write(scope: Scope, request: RequestContext, status: int, seconds: float) -> None:
    """The line of a request that is over; `time` is that of its end, in seconds since 1970."""
    if not _enabled:
        return
    line = {
        "time": round(time.time(), 3),
        "request_id": request.id,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        "status": status,
        "seconds": round(seconds, 6),
    }
    if manifest := request.manifest:
        line |= {"model": manifest.tag, "version": manifest.version}
    if request.key:
        line["key"] = request.key.name
    # One call for the whole line, so that those of several workers do not mix.
    os.write(sys.stderr.fileno(), dumps(line) + b"\n")
