"""Who may ask: a known key with the right scope and something left of its share.

A key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Where there are no keys, only the machine
itself is answered: a request that came in by a public address is refused unless the operator said that this
is meant. So is one that a web page of elsewhere may have sent, or a browser on this machine would load models
and start jobs for whoever wrote the page that it shows. It names the page as `Origin`; a page that reaches us
by a name of its own that it pointed here (DNS rebinding) is told by the name in `Host`.
"""

from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

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
            if not self.allow_public:
                _check_local(scope)
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


_REASONS = {Unauthenticated: "unauthenticated", Forbidden: "forbidden", RateLimited: "rate_limited"}


def _check_local(scope: Scope) -> None:
    """Raise Forbidden for a request that this machine's own programs, and pages, do not send."""
    if not is_loopback((scope.get("server") or ("",))[0]):
        raise Forbidden("no API keys are set, so only this machine is answered; see docs/operating.md")
    origin, host = header(scope, b"origin"), header(scope, b"host")
    if origin and not is_loopback(_host_of(origin) or origin):
        raise Forbidden(
            f"no API keys are set, so no web page of '{origin[:100]}' is answered; see docs/operating.md"
        )
    if host and _is_a_strangers_name(_host_of(f"//{host}") or host):
        raise Forbidden(
            f"no API keys are set, so nobody is answered who calls this machine '{host[:100]}'; "
            "see docs/operating.md"
        )


@lru_cache(256)
def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


@lru_cache(256)
def _is_a_strangers_name(host: str) -> bool:
    """Whether a host is called by a name, which anybody may point here, and not by an address."""
    try:
        ip_address(host)
    except ValueError:
        return host != "localhost"
    return False


@lru_cache(256)
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
