"""The last net: whatever was raised becomes a typed answer, and one log entry where nobody expected it.

BentoML leaves the client waiting when an exception escapes from an ASGI app, so none may.
"""

import asyncio
import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.errors import ModelpressError
from service import context
from service.errors import Draining
from service.problem import problem_response

logger = logging.getLogger("modelpress.service")


class CatchAllMiddleware:
    """Answers for an app that raised. If the answer had begun, it is cut short, which the client sees."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = context.current()
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            # The server ends, and its grace period is over. Clients that leave are told apart before
            # (`disconnect.py`). The task ends here in any case: there is no traceback in this.
            if request is None or request.status is None:
                error = Draining("the server stopped before the answer; send this to another one")
                await problem_response(scope, error)(scope, receive, send)
        except Exception as error:
            if not isinstance(error, ModelpressError | HTTPException):
                request_id = scope["state"]["request_id"]
                logger.exception("request %s: %s %s", request_id, scope["method"], scope["path"])
            if request is None or request.status is None:
                await problem_response(scope, error)(scope, receive, send)
