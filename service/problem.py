"""From an exception to an HTTP error, in the shape of the dialect that was spoken to.

`/v1` gets OpenAI's object; everything else gets `{"error": message, "code": code}`, which is the Open
Inference Protocol's with one key more. Whatever is not in the table is our fault: 500, the request's id,
and not a word about the inside.
"""

import math
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from runtime.errors import InputError, ModelpressError, PromptTooLong
from service.errors import (
    BodyTooLarge,
    Conflict,
    DeadlineExceeded,
    DeadlineUnmeetable,
    Draining,
    EncodedBody,
    Forbidden,
    InvalidRequest,
    JobsUnavailable,
    ModelFailed,
    RateLimited,
    TooBusy,
    Unauthenticated,
    UnknownAdapter,
    UnknownJob,
    UnknownModel,
)
from service.json_response import JsonResponse

# What nginx logs for a client that hung up; nobody reads the answer, but the metrics should not say 500.
CLIENT_LEFT = 499


@dataclass(frozen=True, slots=True)
class Kind:
    """A class of errors: its HTTP status, OpenAI's type for it, and a code that programs can test."""

    status: int
    type: str
    code: str


KINDS: dict[type[Exception], Kind] = {
    PromptTooLong: Kind(400, "invalid_request_error", "context_length_exceeded"),
    InputError: Kind(400, "invalid_request_error", "invalid_input"),
    InvalidRequest: Kind(400, "invalid_request_error", "invalid_request"),
    UnknownModel: Kind(404, "invalid_request_error", "model_not_found"),
    UnknownAdapter: Kind(404, "invalid_request_error", "adapter_not_found"),
    Unauthenticated: Kind(401, "invalid_request_error", "invalid_api_key"),
    Forbidden: Kind(403, "invalid_request_error", "insufficient_scope"),
    UnknownJob: Kind(404, "invalid_request_error", "job_not_found"),
    Conflict: Kind(409, "invalid_request_error", "conflict"),
    JobsUnavailable: Kind(403, "invalid_request_error", "jobs_unavailable"),
    BodyTooLarge: Kind(413, "invalid_request_error", "body_too_large"),
    EncodedBody: Kind(415, "invalid_request_error", "unsupported_encoding"),
    TooBusy: Kind(429, "rate_limit_error", "too_busy"),
    RateLimited: Kind(429, "rate_limit_error", "rate_limit_exceeded"),
    DeadlineUnmeetable: Kind(429, "rate_limit_error", "deadline_unmeetable"),
    Draining: Kind(503, "server_error", "draining"),
    DeadlineExceeded: Kind(504, "server_error", "deadline_exceeded"),
    ModelFailed: Kind(500, "server_error", "model_failed"),
    ClientDisconnect: Kind(CLIENT_LEFT, "client_error", "client_left"),
}
INTERNAL = Kind(500, "server_error", "internal_error")


def kind_of(error: Exception) -> Kind:
    """The kind of an error: that of its nearest class in the table."""
    if isinstance(error, HTTPException):
        code = HTTPStatus(error.status_code).name.lower()
        return Kind(error.status_code, "invalid_request_error", code)
    return next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), INTERNAL)


def problem_response(scope: Scope, error: Exception) -> Response:
    """The answer to a request that ended in `error`."""
    kind = kind_of(error)
    body = problem_body(scope, error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, TooBusy):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return JsonResponse(body, kind.status, headers)


def problem_body(scope: Scope, error: Exception) -> dict[str, Any]:
    """The JSON of an error, for the dialect of the request's path."""
    kind, message = kind_of(error), _message(scope, error)
    if not scope["path"].startswith("/v1/"):
        return {"error": message, "code": kind.code}
    param = getattr(error, "param", None)
    return {"error": {"message": message, "type": kind.type, "param": param, "code": kind.code}}


def _message(scope: Scope, error: Exception) -> str:
    if isinstance(error, HTTPException):
        return f"{error.detail}: {scope['method']} {scope['path']}"
    if kind_of(error).status != INTERNAL.status:
        return str(error)
    said = str(error) if isinstance(error, ModelpressError) else "something broke inside the server"
    return f"{said} (request {scope['state']['request_id']}; the server's log says more)"
