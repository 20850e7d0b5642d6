"""The Bento: what is in it, and that it starts where torch is not installed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bentoml
import httpx
import pytest
import yaml
from bentoml._internal.models import ModelStore

from runtime.bundle import Bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bento(environment: dict[str, str], bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bento built over one of the two bundles in its store. Its folder is inside a BENTOML_HOME."""
    home = tmp_path_factory.mktemp("home")
    (home / "models").mkdir()
    for name in ("digits", "chatter"):
        manifest = Bundle.open(bundles / name).manifest
        tag = f"{manifest.tag}:{manifest.version}"
        store = ModelStore(home / "models")
        with bentoml.models.create(tag, module="modelpress", _model_store=store) as model:
            shutil.copytree(bundles / name, model.path, dirs_exist_ok=True)
    # BentoML looks for uv, installs it where it is not, and does not use it for packages that are pinned.
    (home / "uv").write_text("#!/bin/sh\nexit 1\n")
    (home / "uv").chmod(0o755)
    path = os.pathsep.join([str(home), os.environ["PATH"]])
    build = [sys.executable, "-m", "bentoml", "build", str(ROOT), "--version", "test"]
    variables = {"BENTOML_HOME": str(home), "MODELPRESS_BUNDLES": "digits-tiny", "PATH": path}
    subprocess.run(build, env=environment | variables, check=True, capture_output=True)
    return home / "bentos" / "modelpress" / "test"


@contextmanager
def served(python: Path | str, bento: Path, environment: dict[str, str]) -> Iterator[httpx.Client]:
    """`bentoml serve` over a Bento; its whole process group is gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [python, "-m", "bentoml", "serve", bento, "--host", "127.0.0.1", "--port", str(port)]
    variables = environment | {"BENTOML_HOME": str(bento.parents[2])}
    process = subprocess.Popen(command, env=variables, cwd=bento, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_until_ready(client, process)
            yield client
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)


def check_answers(client: httpx.Client) -> None:
    """It serves what it was built with and nothing else, and measures it."""
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["digits-tiny"]
    tensor = {"name": "pixels", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [1.0] * 64}
    answer = client.post("/v2/models/digits-tiny/infer", json={"inputs": [tensor]})
    assert answer.json()["outputs"][0]["data"] == pytest.approx([-0.5, 0.5])
    assert 'route="/v2/models/{name}/infer"' in client.get("/metrics").text


def test_it_holds_the_service_the_runtime_and_its_models(bento):
    names = {path.name for path in (bento / "src").iterdir()}
    assert names == {"service", "runtime", "bentofile.yaml"}
    services = yaml.safe_load((bento / "bento.yaml").read_text())["services"]
    assert [model["tag"].partition(":")[0] for model in services[0]["models"]] == ["digits-tiny"]


def test_its_image_reports_nothing_to_bentoml(bento):
    assert "BENTOML_DO_NOT_TRACK=True" in (bento / "env" / "docker" / "Dockerfile").read_text()


def test_it_asks_for_the_versions_that_were_tested(bento):
    pinned = {line.lower() for line in (ROOT / "constraints.txt").read_text().split()}
    required = (bento / "env" / "python" / "requirements.txt").read_text().split()
    assert {line.lower() for line in required} <= pinned
    assert not any(line.startswith(("torch", "transformers", "onnx=")) for line in required)


def test_it_starts_where_torch_cannot_be_imported(bento, environment):
    # The Bento's own copy of the packages must be the one that runs.
    blocker = environment["PYTHONPATH"].split(os.pathsep)[0]
    with served(sys.executable, bento, environment | {"PYTHONPATH": blocker}) as client:
        check_answers(client)


@pytest.mark.slow
def test_it_starts_in_an_environment_made_from_its_own_requirements(bento, environment, tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    requirements = bento / "env" / "python" / "requirements.txt"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    with served(python, bento, environment | {"PYTHONPATH": ""}) as client:
        check_answers(client)
