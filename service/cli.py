"""`modelpress serve`: take the port, check and load the bundles, and run the BentoML service in this process.

It is `bentoml serve` without the supervisor: one process, ready a second earlier, and the first wrong thing
ends it with one line. More workers, containers and the rest are BentoML's: `bentoml serve`, `bentoml build`.
"""

import gc
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.errors import BundleNotFound, ModelpressError
from runtime.manifest import Manifest
from service.errors import BindFailed, ServiceError
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from service.catalog import Catalog

# How long open streams may go on after SIGTERM.
GRACE_SECONDS = 5
# Longer than clients keep idle connections (aiohttp: 15 s), so that none is closed under a request.
KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048

app = typer.Typer()


@app.callback()
def main() -> None:
    """Serve bundles over HTTP."""


@app.command("serve")
def serve_command(
    bundles: Annotated[
        list[str] | None, typer.Argument(help="Folders or BentoML tags; none: the whole store.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 3000,
    threads: Annotated[int | None, typer.Option(min=1, help="Cores that one run of a model may use.")] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Sequences that a text model decodes at once (8).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say what is served as one line of JSON.")] = False,
) -> None:
    """Serve bundles over REST until SIGTERM or Ctrl-C."""
    try:
        serve(bundles or [], host=host, port=port, threads=threads, slots=slots, as_json=as_json)
    except ModelpressError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def serve(
    bundles: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 3000,
    threads: int | None = None,
    slots: int | None = None,
    as_json: bool = False,
) -> None:
    """Serve `bundles` in this process, from its main thread, until a signal ends it.

    What is None or empty comes from the environment, as `settings.py` says. Raises BindFailed where the port
    is taken, BundleError and GraphError for a bundle that cannot be served.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    listener = bind(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    # Nothing that is loaded now becomes garbage; looking for it takes an eighth of the start-up time.
    gc.disable()
    given = {name: value for name, value in (("threads", threads), ("slots", slots)) if value}
    settings = Settings.from_environment().model_copy(update=given)
    catalog = _load(bundles or settings.bundles, settings)
    greeting = _greeting(url, catalog.manifests, as_json)
    asgi = _announcing(_service(catalog), lambda: print(greeting, flush=True))
    gc.freeze()
    gc.enable()
    _run(asgi, listener)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises BindFailed, before anything heavy is loaded, where there is none to have."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise BindFailed(
            f"cannot listen on {host} port {port}: {reason}; choose another with --port"
        ) from None
    return listener


def _load(bundles: Sequence[str], settings: Settings) -> "Catalog":
    from service.catalog import Catalog
    from service.store import find_all

    catalog = Catalog.load(find_all(bundles), settings)
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


def _announcing(app: "ASGIApp", announce: Callable[[], None]) -> "ASGIApp":
    """The app, with `announce` called once its start-up is complete."""

    async def announcing(scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def watch(message: "Message") -> None:
            if message["type"] == "lifespan.startup.complete":
                announce()
            await send(message)

        await app(scope, receive, watch if scope["type"] == "lifespan" else send)

    return announcing


def _run(app: "ASGIApp", listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise ServiceError("the server did not start; the log above says why")


def _greeting(url: str, manifests: Sequence[Manifest], as_json: bool) -> str:
    if as_json:
        return json.dumps({"url": url, "models": [_described(manifest) for manifest in manifests]})
    lines = [f"  {manifest.tag}  {manifest.task}  {manifest.version}" for manifest in manifests]
    return "\n".join([f"Serving on {url}", *lines, "Try:", f"  {_example(url, manifests[0])}"])


def _described(manifest: Manifest) -> dict[str, Any]:
    return {"name": manifest.tag, "version": manifest.version, "task": manifest.task}


def _example(url: str, manifest: Manifest) -> str:
    """A curl line that the first model answers."""
    kind = manifest.processing.kind
    if kind == "image":
        return f"curl {url}/predict/{manifest.tag} --data-binary @image.png"
    path, body = f"/predict/{manifest.tag}", {"text": "What a lovely day"}
    if kind == "generation":
        path, body = "/v1/completions", {"model": manifest.tag, "prompt": "def main("}
    if kind == "tensor":
        return f"curl {url}/v2/models/{manifest.tag}"
    return f"curl {url}{path} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"


def _leave(number: int, frame: FrameType | None) -> None:
    """Asked to stop: nothing went wrong. A running server handles the signal first and comes here last."""
    raise SystemExit(0)


if __name__ == "__main__":
    app()
