"""Starts the servers that serving.py compares, each on a free port and gone afterwards."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).parent / "serving_peers"
Running = tuple[str, psutil.Process]


@contextmanager
def ours(*arguments: str | Path) -> Iterator[Running]:
    """`modelpress serve`, with its request log going to nowhere: (its URL, its process)."""
    command = [sys.executable, "-m", "service.cli", "serve", *map(str, arguments), "--port", "0", "--json"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"], psutil.Process(process.pid)
        finally:
            process.terminate()


@contextmanager
def starlette(model: Path) -> Iterator[Running]:
    """The yardstick."""
    with _server(lambda port: [sys.executable, PEERS / "starlette_app.py", model, port], "/infer") as running:
        yield running


@contextmanager
def litserve(environment: Path, model: Path) -> Iterator[Running]:
    """LitServe, of its own environment."""
    python = environment / "bin" / "python"
    with _server(lambda port: [python, PEERS / "litserve_app.py", model, port], "/infer") as running:
        yield running


@contextmanager
def bentoml(environment: Path, model: Path) -> Iterator[Running]:
    """Native BentoML, of our environment: its version is ours."""
    variables = {"PEER_MODEL": str(model), "BENTOML_DO_NOT_TRACK": "True"}

    def command(port: int) -> list[object]:
        return [sys.executable, "-m", "bentoml", "serve", "bento_app:Digits", "--port", port]

    with _server(command, "/infer", PEERS, variables) as running:
        yield running


@contextmanager
def mlserver(environment: Path, model: Path) -> Iterator[Running]:
    """MLServer, of its own environment, without the second process that would only cost it time."""
    folder = model.parent / "mlserver"
    folder.mkdir(exist_ok=True)
    (folder / "mlserver_model.py").write_bytes((PEERS / "mlserver_model.py").read_bytes())
    implementation = {"name": "digits", "implementation": "mlserver_model.Digits"}
    parameters = {"parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(implementation | parameters))

    def command(port: int) -> list[object]:
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": _free(), "metrics_port": _free()}
        settings |= {"parallel_workers": 0, "debug": False}
        (folder / "settings.json").write_text(json.dumps(settings))
        return [environment / "bin" / "mlserver", "start", folder]

    with _server(command, "/v2/models/digits/infer", folder, {"PYTHONPATH": str(folder)}) as running:
        yield running


@contextmanager
def _server(
    command: Callable[[int], list[object]],
    path: str,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    port = _free()
    with subprocess.Popen(
        [str(part) for part in command(port)],
        cwd=folder,
        env=os.environ | (variables or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait(port, process)
            yield f"http://127.0.0.1:{port}{path}", psutil.Process(process.pid)
        finally:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.terminate()


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{process.args!r} did not start")
