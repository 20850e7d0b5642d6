"""One process that answers on a socket: loads the bundles, runs the BentoML service, and leaves politely.

It is `bentoml serve` without the supervisor. At SIGTERM readiness flips at once and new requests are
refused with 503 on a port that stays open, so that a balancer sees it; what runs may finish within the
grace period, and ends with an error after it; the exit code is 0. A second signal does not wait.
"""

import asyncio
import gc
import os
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from runtime.errors import BundleNotFound
from runtime.manifest import Manifest
from service import traffic
from service.errors import ServiceError
from service.one_write import OneWriteProtocol
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from service.catalog import Catalog

# Longer than clients keep idle connections (aiohttp: 15 s), so that none is closed under a request.
KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048
# uvicorn writes a new date into its answers each time that it looks at what there is to do.
TICK_SECONDS = 1.0
# For the answers that the grace period cut off.
CLOSE_SECONDS = 1

Announce = Callable[[Sequence[Manifest]], None]


def run(listener: socket.socket, settings: Settings, announce: Announce) -> None:
    """Serve until a signal ends it; from the main thread. `announce` is called once it is ready.

    Raises BundleError and GraphError for a bundle that cannot be served, ServiceError for a wrong setting.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    # Nothing that is loaded now becomes garbage; looking for it takes an eighth of the start-up time.
    gc.disable()
    catalog = _load(settings)
    asgi = _service(catalog)
    gc.freeze()
    gc.enable()
    server = _Server(_config(asgi, settings), catalog, settings.grace, announce)
    server.run(sockets=[listener])
    if not server.started:
        raise ServiceError("the server did not start; the log above says why")


class _Server(uvicorn.Server):
    """uvicorn's server, which drains before it closes the port."""

    def __init__(self, config: uvicorn.Config, catalog: "Catalog", grace: float, announce: Announce) -> None:
        super().__init__(config)
        self._catalog, self._grace, self._announce = catalog, grace, announce
        self._traffic = catalog.traffic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._announce(self._catalog.manifests)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; what the grace period was too short for is told so first."""
        self._catalog.cut_off()
        await super().shutdown(sockets)

    async def main_loop(self) -> None:
        """As uvicorn's, which wakes up ten times a second to see whether it should stop."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), TICK_SECONDS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came: drain; at the second one, or before there is anything to drain, stop."""
        if self._loop is None or not self.started or self._traffic.draining:
            self._exit()
            return
        self._traffic.draining = True
        self._loop.call_soon_threadsafe(self._begin_draining)

    def _begin_draining(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            await asyncio.wait_for(self._traffic.settled(), self._grace)
        except TimeoutError:
            pass
        finally:
            self._exit()

    def _exit(self) -> None:
        self.should_exit = True
        if self._loop:
            self._loop.call_soon_threadsafe(self._woken.set)


def _config(asgi: "ASGIApp", settings: Settings) -> uvicorn.Config:
    config = uvicorn.Config(
        asgi,
        http=OneWriteProtocol,
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ServiceError(
            f"TLS: {settings.tls_cert} and {settings.tls_key}: {error}; name a PEM pair"
        ) from None
    return config


def _load(settings: Settings) -> "Catalog":
    from service.catalog import Catalog
    from service.store import find_all

    catalog = Catalog.open(find_all(settings.bundles), settings, traffic.here)
    if not catalog.manifests:
        raise BundleNotFound(
            "the model store holds no bundle; make one with `modelpress compress`, or name a folder"
        )
    return catalog


def _service(catalog: "Catalog") -> "ASGIApp":
    # Importing BentoML takes a second; what is wrong with a bundle has been said before.
    from service import service

    service.app.state.load = lambda: catalog
    return service.asgi()


def _leave(number: int, frame: FrameType | None) -> None:
    """Asked to stop before there is a server: nothing went wrong."""
    raise SystemExit(0)
