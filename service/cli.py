"""`modelpress serve` and `modelpress key`: take the port, check who may come, and serve.

Options become the environment that `settings.py` reads, so that workers and `bentoml serve` are told alike.
`server.py` is the process that answers, `supervisor.py` keeps several of them.
"""

import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.errors import ModelpressError
from service.errors import BindFailed, ServiceError
from service.keys import SCOPES, Keyring, new_key
from service.settings import MOST_THREADS, PREFIX, Settings

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
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, max=MOST_THREADS, help="Cores that one run of a model may use.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Sequences that a text model decodes at once (8).")
    ] = None,
    speculate: Annotated[
        str | None,
        typer.Option(help="What drafts: 'lookup', a text file, a smaller model; commas between several."),
    ] = None,
    aliases: Annotated[
        Path | None, typer.Option(help="JSON file: names for models, canaries, shadows.")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="File of API keys, made by `modelpress key`.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM: serve https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key, PEM.")] = None,
    allow_public: Annotated[
        bool, typer.Option("--allow-public", help="Answer other machines although no keys are set.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say what is served as one line of JSON.")] = False,
) -> None:
    """Serve bundles over REST until SIGTERM or Ctrl-C."""
    given = {
        "bundles": ",".join(bundles or ()),
        "threads": threads,
        "slots": slots,
        "speculate": speculate,
        "aliases": aliases,
        "keys_file": keys,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "allow_public": allow_public or None,
    }
    try:
        serve(host, port, workers, given, as_json=as_json)
    except ModelpressError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command("key")
def key_command(
    name: Annotated[str, typer.Argument(help="Whose key it is; logs say this name.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="infer (the default) or admin; may be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Keys file to append to.")] = Path("keys.txt"),
) -> None:
    """Make an API key: its hash goes into the keys file, the key itself is shown once."""
    try:
        secret, line = new_key(name, scope or [SCOPES[0]])
        _append(out, line)
    except ModelpressError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(secret)


def serve(host: str, port: int, workers: int, given: dict[str, Any], *, as_json: bool) -> None:
    """Serve until a signal ends it, from the main thread. What is None or empty comes from the environment.

    Raises BindFailed where the port is taken, ServiceError for what is not safe or not understood,
    BundleError and GraphError for a bundle that cannot be served.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.environ |= {PREFIX + name.upper(): str(value) for name, value in given.items() if value}
    settings = Settings.from_environment()
    _check_exposure(host, settings)
    listener = bind(host, port)
    scheme = "https" if settings.tls_cert else "http"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"

    def greet(models: Sequence[dict[str, Any]]) -> None:
        print(_greeting(url, models, as_json), flush=True)

    if workers > 1:
        from service.supervisor import Supervisor

        Supervisor(listener, workers, settings).serve(lambda line: greet(json.loads(line)))
    else:
        from service import server
        from service.worker import described

        server.run(listener, settings, lambda found: greet([described(each) for each in found]))


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


def _check_exposure(host: str, settings: Settings) -> None:
    from service.middleware.authorize import is_loopback

    keys = Keyring.read(settings.keys_file, settings.api_keys)
    if not (keys or settings.allow_public or is_loopback(host)):
        raise ServiceError(
            f"{host} can be reached by other machines and no API keys are set; "
            "name a file with --keys, or say --allow-public"
        )
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ServiceError("TLS wants a certificate and its key; give --tls-cert and --tls-key")


def _append(path: Path, line: str) -> None:
    try:
        # Only its owner reads it: hashes of random keys tell nothing, names and scopes do.
        with open(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a") as file:
            file.write(line + "\n")
    except OSError as error:
        raise ServiceError(
            f"{path}: cannot be written: {error.strerror}; choose another with --out"
        ) from None


def _greeting(url: str, models: Sequence[dict[str, Any]], as_json: bool) -> str:
    if as_json:
        return json.dumps({"url": url, "models": models})
    lines = []
    for model in models:
        lines.append(f"  {model['name']}  {model['task']}  {model['version']}")
        graphs = model.get("graphs", {}).items()
        lines += [f"    calls of {tokens} tokens and more: {file}" for file, tokens in graphs]
    return "\n".join([f"Serving on {url}", *lines, "Try:", f"  {_example(url, models[0])}"])


def _example(url: str, model: dict[str, Any]) -> str:
    """A curl line that the first model answers."""
    tag, kind = model["name"], model["processing"]
    if kind in ("image", "captioned"):
        return f"curl {url}/predict/{tag} --data-binary @image.png"
    path, body = f"/predict/{tag}", {"text": "What a lovely day"}
    if kind == "generation":
        path, body = "/v1/completions", {"model": tag, "prompt": "def main("}
    if kind == "tensor":
        return f"curl {url}/v2/models/{tag}"
    return f"curl {url}{path} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"


if __name__ == "__main__":
    app()
