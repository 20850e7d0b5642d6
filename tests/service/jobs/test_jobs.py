"""Compression jobs over REST: real servers, and a recipe that takes seconds."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import Bundle

ROOT = Path(__file__).parents[3]
RECIPE = "model: onnx:tiny.onnx\nsteps:\n  - {method: quantize, scheme: int8-dynamic}\n"
# It finds out soon, but only at work: a recipe's meaning is not the service's business.
FAILING = "model: onnx:absent.onnx\nsteps: []\n"
# Reading it takes until somebody writes: never.
ENDLESS = "model: onnx:pipe.onnx\nsteps: []\n"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's folder of models: one graph of a single matrix."""
    folder = tmp_path_factory.mktemp("inputs")
    weights = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "tiny.onnx")
    os.mkfifo(folder / "pipe.onnx")
    return folder


@pytest.fixture(scope="module")
def compressing(inputs: Path, environment: dict[str, str], tmp_path_factory) -> dict[str, str]:
    """An environment in which the operator allows jobs, and in which they can work."""
    home = tmp_path_factory.mktemp("home")
    return environment | {
        "PYTHONPATH": str(ROOT),
        # What succeeds is published: the other tests' store must stay empty.
        "BENTOML_HOME": str(home / "bentoml"),
        "MODELPRESS_HOME": str(home),
        "MODELPRESS_JOBS": "1",
        "MODELPRESS_JOBS_SHARE": "1.0",
        "MODELPRESS_JOBS_INPUTS": str(inputs),
    }


@pytest.fixture(scope="module")
def http(serve_in, compressing, bundles) -> Iterator[httpx.Client]:
    """A client of a server that compresses."""
    with serve_in(compressing, str(bundles / "digits")) as server:
        yield server.http


@pytest.fixture
def ended(eventually) -> Callable[[httpx.Client, str], dict[str, Any]]:
    """Waits for a job's end; its status."""

    def wait(http: httpx.Client, job_id: str) -> dict[str, Any]:
        eventually(lambda: http.get(f"/jobs/{job_id}").json()["state"] not in ("queued", "running"), 120)
        return http.get(f"/jobs/{job_id}").json()

    return wait


def submit(http: httpx.Client, recipe: str = RECIPE) -> str:
    answer = http.post("/jobs", content=recipe, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


def test_a_job_outlives_its_server_and_its_bundle_is_fetched_from_the_next(
    serve_in, compressing, bundles, ended, tmp_path
):
    with serve_in(compressing, str(bundles / "digits")) as server:
        job = submit(server.http)
        assert server.http.get(f"/jobs/{job}").json()["state"] in ("queued", "running")
        assert server.http.get(f"/jobs/{job}/bundle").status_code == 409
        assert server.http.delete(f"/jobs/{job}").status_code == 409
    with serve_in(compressing, str(bundles / "digits")) as server:
        status = ended(server.http, job)
        assert status["state"] == "succeeded", server.http.get(f"/jobs/{job}/log").text
        assert status["error"] is None
        assert status["bundles"][0].startswith("tiny-int8-dynamic:")
        assert status["result"][0]["manifest"]["variant"] == "int8-dynamic"
        assert "measure" in server.http.get(f"/jobs/{job}/log").text
        assert [each["id"] for each in server.http.get("/jobs").json()["jobs"]] == [job]
        content = io.BytesIO(server.http.get(f"/jobs/{job}/bundle").content)
        with tarfile.open(fileobj=content) as archive:
            archive.extractall(tmp_path)
        assert Bundle.open(tmp_path / "tiny-int8-dynamic").manifest.version in status["bundles"][0]
        assert server.http.delete(f"/jobs/{job}").status_code == 204
        assert server.http.get(f"/jobs/{job}").status_code == 404


def test_jobs_take_turns_fail_with_one_line_and_are_cancelled(http, ended, eventually):
    endless = submit(http, ENDLESS)
    eventually(lambda: http.get(f"/jobs/{endless}").json()["state"] == "running", 60)
    waiting, failing = submit(http), submit(http, FAILING)
    assert http.get(f"/jobs/{waiting}").json()["state"] == "queued"
    assert http.post(f"/jobs/{waiting}/cancel").status_code == 200
    assert http.post(f"/jobs/{endless}/cancel").status_code == 200
    assert ended(http, waiting)["state"] == ended(http, endless)["state"] == "cancelled"
    failed = ended(http, failing)
    assert failed["state"] == "failed"
    assert "absent.onnx" in failed["error"]
    left = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    assert not [process for process in left if endless in " ".join(process.info["cmdline"])]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"model: py:os:getcwd", 400, "run code"),
        (b'{"recipe": {"model": "hf:/etc"}}', 400, "leaves the folder"),
        (b'{"recipe": 3}', 400, "recipe"),
        (b'{"recipe": "x", "forse": true}', 400, "did you mean 'force'"),
        (b"\xff", 400, "UTF-8"),
        (b"", 400, "mapping"),
    ],
)
def test_a_recipe_that_may_not_run_is_refused_at_once(http, body, status, message):
    answer = http.post("/jobs", content=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/jobs"), ("GET", "/jobs"), ("GET", "/jobs/x")])
def test_without_the_operators_leave_there_are_no_jobs(server, method, path):
    answer = server.http.request(method, path, content=RECIPE)
    assert (answer.status_code, answer.json()["code"]) == (403, "jobs_unavailable")
    assert "MODELPRESS_JOBS=1" in answer.json()["error"]
