"""`modelpress serve`: one line and exit code 2 for what is wrong; exit code 0 when it is told to stop."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.bundle import MANIFEST, Bundle, write_bundle
from runtime.manifest import PhaseGraph

Refused = Callable[..., str]


@pytest.fixture
def refused(environment: dict[str, str]) -> Refused:
    """Runs `serve`, which must end with exit code 2 and one line: that line."""

    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", "service.cli", "serve", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        return line

    return run


def test_a_busy_port_is_one_line(refused, bundles):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(bundles / "digits", "--port", port)
    assert f"port {port}" in line
    assert "in use" in line
    assert "--port" in line


def test_a_host_that_is_not_ours_is_one_line(refused, bundles):
    assert "cannot listen on 192.0.2.1" in refused(
        bundles / "digits", "--host", "192.0.2.1", "--port", 0, "--allow-public"
    )


def test_a_bundle_that_is_not_there_is_one_line(refused, tmp_path):
    assert "no bundle here" in refused(tmp_path / "nothing", "--port", 0)


def test_an_unknown_tag_and_an_empty_store_are_one_line(refused):
    assert "no bundle 'lenet5-int8' in the model store" in refused("lenet5-int8", "--port", 0)
    assert "holds no bundle" in refused("--port", 0)


def test_a_changed_byte_is_one_line(refused, bundles, tmp_path):
    manifest = Bundle.open(bundles / "digits").manifest
    bundle = write_bundle(tmp_path / "digits", manifest, {"model.onnx": bundles / "digits" / "model.onnx"})
    graph = bytearray((bundle.path / "model.onnx").read_bytes())
    graph[-1] ^= 1
    (bundle.path / "model.onnx").write_bytes(graph)
    assert "sha256" in refused(bundle.path, "--port", 0)
    (bundle.path / MANIFEST).write_text("{}")
    assert "not a valid manifest" in refused(bundle.path, "--port", 0)


def test_a_graph_that_is_not_onnx_is_one_line(refused, bundles, tmp_path):
    (tmp_path / "text").write_text("hello")
    manifest = Bundle.open(bundles / "digits").manifest
    bundle = write_bundle(tmp_path / "digits", manifest, {"model.onnx": tmp_path / "text"})
    assert "onnxruntime cannot load it" in refused(bundle.path, "--port", 0)


def test_two_bundles_of_one_name_are_one_line(refused, bundles):
    assert "two bundles" in refused(bundles / "digits", bundles / "digits", "--port", 0)


def test_sigterm_ends_it_well_even_while_it_streams(serve, bundles):
    body = {"model": "chatter-tiny", "prompt": "a", "max_tokens": 16_000, "stream": True}
    with serve(str(bundles / "chatter")) as server:
        with server.http.stream("POST", "/v1/completions", json=body) as response:
            next(response.iter_lines())
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=120)
        assert server.process.returncode == 0


def test_a_folder_name_in_the_working_directory_is_enough(bundles, monkeypatch):
    from service.store import find

    monkeypatch.chdir(bundles)
    assert find("digits").manifest.tag == "digits-tiny"


def test_the_greeting_says_which_graph_runs_which_calls(bundles: Path):
    from service.cli import _greeting
    from service.worker import described

    manifest = Bundle.open(bundles / "chatter").manifest
    assert "graphs" not in described(manifest)
    graph = manifest.graph.model_copy(update={"phases": (PhaseGraph(from_tokens=8, file="many.onnx"),)})
    several = described(manifest.model_copy(update={"graph": graph}))
    assert several["graphs"] == {"decoder.onnx": 1, "many.onnx": 8}
    said = _greeting("http://localhost:1", [several], False)
    assert "calls of 1 tokens and more: decoder.onnx" in said
    assert "calls of 8 tokens and more: many.onnx" in said


def test_the_greeting_is_a_command_that_works_and_ctrl_c_ends_it_in_silence(environment, bundles: Path):
    command = [sys.executable, "-m", "service.cli", "serve", str(bundles / "chatter"), "--port", "0"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe)
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        assert "chatter-tiny" in lines[1]
        answer = subprocess.check_output(["sh", "-c", f"{lines[3].strip()} --silent"], text=True)
        assert '"text_completion"' in answer
        process.send_signal(signal.SIGINT)
        out, log = process.communicate(timeout=120)
        assert (out, json.loads(log)["status"]) == ("", 200)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
