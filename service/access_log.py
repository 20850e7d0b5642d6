"""One line of JSON per request, on standard error: who asked what, who answered, how, and how long it took.

No header, no query and no body is ever written, so no key and no prompt is.
"""

import json
import logging
import sys
from datetime import UTC, datetime

from starlette.types import Scope

from service.context import RequestContext

logger = logging.getLogger("modelpress.access")
LONGEST_PATH = 200


def configure(enabled: bool) -> None:
    """Send the lines to standard error, or nowhere."""
    logger.propagate = False
    logger.disabled = not enabled
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.setLevel(logging.INFO)


def write(scope: Scope, request: RequestContext, status: int, seconds: float) -> None:
    """The line of a request that is over."""
    if logger.disabled or not logger.handlers:
        return
    manifest = request.manifest
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": request.id,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        "status": status,
        "seconds": round(seconds, 6),
    }
    if manifest:
        line |= {"model": manifest.tag, "version": manifest.version}
    if request.key:
        line["key"] = request.key.name
    logger.info(json.dumps(line))
