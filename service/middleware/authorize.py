"""Who may ask: a known key with the right scope and something left of its share.

A key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Where there are no keys, only the machine
itself is answered: a request that came in by a public address is refused unless the operator said that this
is meant.
"""

from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from service import context, metrics
from service.errors import Forbidden, RateLimited, Unauthenticated
from service.keys import Key, Keyring
from service.middleware.headers import header
from service.middleware.paths import PROBES, wants_admin
from service.problem import problem_response
from service.quota import Quotas


class AuthorizeMiddleware:
    """Lets a request through, or answers 401, 403 or 429 in its dialect."""

    def __init__(self, app: ASGIApp, keys: Keyring, quotas: Quotas, allow_public: bool) -> None:
        self.app = app
        self.keys, self.quotas = keys, quotas
        self.allow_public = allow_public
        self._loopback: dict[str, bool] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            return await self.app(scope, receive, send)
        try:
            key = self._check(scope)
            if key:
                self.quotas.take(key)
        except (Unauthenticated, Forbidden, RateLimited) as error:
            metrics.REJECTIONS.labels(_REASONS[type(error)]).inc()
            return await problem_response(scope, error)(scope, receive, send)
        try:
            await self.app(scope, receive, send)
        finally:
            if key:
                self.quotas.give_back(key)

    def _check(self, scope: Scope) -> Key | None:
        """The request's key; None where no keys are asked for. Raises Unauthenticated or Forbidden."""
        if not self.keys:
            if not self.allow_public and not self._is_local(scope):
                raise Forbidden("no API keys are set, so only this machine is answered; see docs/service.md")
            return None
        key = self.keys.find(_secret(scope))
        if key is None:
            raise Unauthenticated("send a known API key as 'Authorization: Bearer KEY'")
        wanted = "admin" if wants_admin(scope["path"]) else "infer"
        if not {wanted, "admin"} & key.scopes:
            raise Forbidden(f"key '{key.name}' has no '{wanted}' scope")
        if request := context.current():
            request.key = key
        return key

    def _is_local(self, scope: Scope) -> bool:
        """Whether the request came in by a loopback address or a Unix socket."""
        host = (scope.get("server") or ("",))[0]
        if host not in self._loopback:
            self._loopback[host] = is_loopback(host)
        return self._loopback[host]


_REASONS = {Unauthenticated: "unauthenticated", Forbidden: "forbidden", RateLimited: "rate_limited"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def _secret(scope: Scope) -> bytes:
    scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
    secret = token if scheme.lower() == "bearer" else header(scope, b"x-api-key") or ""
    return secret.strip().encode("latin-1")
