"""A server as its operator sees it: keys, deadlines, draining, workers that die, changes while it runs."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic

import httpx
import numpy as np
import onnx
import openai
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.bundle import write_bundle
from service.keys import new_key
from tests.service.conftest import Server, write_digits

# With much to each token: what nobody reads yet must not fit into the sockets' buffers and be over.
STREAM = {"model": "chatter-tiny", "prompt": "a", "max_tokens": 16_000, "stream": True, "logprobs": 20}
PREDICT = "/predict/digits-tiny"
PIXELS = {"pixels": [[255]]}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def keyed(serve, bundles, tmp_path_factory):
    """A server with two keys: (server, the one for inference, the operator's)."""
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    user, user_line = new_key("user", ["infer"])
    operator, operator_line = new_key("operator", ["admin"])
    path.write_text(f"{user_line} concurrency=2\n{operator_line}\n")
    with serve(str(bundles / "digits"), str(bundles / "chatter"), "--keys", str(path)) as server:
        yield server, user, operator


def test_without_a_known_key_nothing_is_answered_but_probes(keyed):
    server, _, _ = keyed
    assert server.http.get("/readyz").status_code == 200
    for headers in ({}, bearer("mp-guess"), {"X-API-Key": "x"}, {"Authorization": "Basic eDp5"}):
        for path in (PREDICT, "/v1/completions", "/metrics", "/", "/predict"):
            answer = server.http.post(path, json=PIXELS, headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_key_may_do_what_its_scopes_say(keyed):
    server, user, operator = keyed
    assert server.http.post(PREDICT, json=PIXELS, headers=bearer(user)).status_code == 200
    assert server.http.post(PREDICT, json=PIXELS, headers={"X-API-Key": operator}).status_code == 200
    refused = server.http.get("/admin/models", headers=bearer(user))
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert server.http.post("/v1/load_lora_adapter", json={}, headers=bearer(user)).status_code == 403
    assert server.http.get("/admin/models", headers=bearer(operator)).status_code == 200


def test_a_key_has_so_many_requests_at_once_and_gets_them_back(keyed, eventually):
    server, user, operator = keyed
    with httpx.Client(base_url=server.url, headers=bearer(user), timeout=60) as client:
        with (
            client.stream("POST", "/v1/completions", json=STREAM),
            client.stream("POST", "/v1/completions", json=STREAM),
        ):
            answer = client.post(PREDICT, json=PIXELS)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        eventually(lambda: client.post(PREDICT, json=PIXELS).status_code == 200)
    assert server.http.post(PREDICT, json=PIXELS, headers=bearer(operator)).status_code == 200


def test_several_workers_give_a_key_no_more_than_one_would(serve, bundles, tmp_path, eventually):
    secret, line = new_key("user", ["infer"])
    (tmp_path / "keys.txt").write_text(f"{line} rate=0.1\n")
    arguments = (str(bundles / "digits"), "--keys", str(tmp_path / "keys.txt"), "--workers", "2")
    with serve(*arguments) as server:
        workers = psutil.Process(server.process.pid)
        eventually(lambda: len(workers.children()) == 2)
        # Connections of their own, so that both workers are asked; ten seconds a request are not over.
        started = monotonic()
        answers = [
            httpx.post(server.url + PREDICT, json=PIXELS, headers=bearer(secret), timeout=30).status_code
            for _ in range(16)
        ]
        allowed = 1 + (monotonic() - started) * 0.1
        assert 1 <= answers.count(200) <= allowed
        assert set(answers) == {200, 429}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:8080"}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Host": "localhost:3000"}, 200),
        ({"Host": "[::1]:3000"}, 200),
        ({"Host": "0.0.0.0:3000"}, 200),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": "elsewhere.example:3000"}, 403),
        ({"Host": "127.0.0.1.elsewhere.example"}, 403),
    ],
)
def test_without_keys_a_browser_does_nothing_for_a_page_of_elsewhere(server, headers, status):
    # As a page may send it without asking before: a simple request.
    headers = {"Content-Type": "text/plain", **headers}
    answer = server.http.post("/admin/models/digits-tiny/load", content=b"{}", headers=headers)
    assert answer.status_code == status, answer.text
    assert status == 200 or "no API keys are set" in answer.json()["error"]


def test_with_keys_a_page_of_elsewhere_is_anybody(keyed):
    server, user, _ = keyed
    headers = {"Origin": "https://elsewhere.example", "Host": "models.example", **bearer(user)}
    assert server.http.post(PREDICT, json=PIXELS, headers=headers).status_code == 200


@pytest.mark.parametrize(("host", "allowed"), [("0.0.0.0", False), ("127.0.0.1", True)])
def test_a_public_address_without_keys_is_refused(environment, bundles, host, allowed):
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "serve",
        str(bundles / "digits"),
        "--host",
        host,
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, env=environment, text=True, stdout=-1, stderr=-1)
    try:
        assert process.stdout.readline().startswith("Serving") is allowed
        process.terminate()
        _, errors = process.communicate(timeout=120)
        assert process.returncode == (0 if allowed else 2)
        assert ("--allow-public" in errors) is not allowed
    finally:
        process.kill()
        process.wait()


def test_modelpress_key_shows_a_key_once_and_keeps_its_hash(environment, tmp_path):
    command = [sys.executable, "-m", "service.cli", "key", "ci", "--out", str(tmp_path / "keys")]
    secret = subprocess.check_output(command, env=environment, text=True).strip()
    kept = (tmp_path / "keys").read_text()
    assert kept.startswith("ci infer ")
    assert secret not in kept
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o600


def test_secrets_and_prompts_are_not_logged(environment, bundles):
    variables = environment | {"MODELPRESS_API_KEYS": "s3cret"}
    command = [sys.executable, "-m", "service.cli", "serve", str(bundles / "digits"), "--port", "0", "--json"]
    process = subprocess.Popen(command, env=variables, text=True, stdout=-1, stderr=-1)
    try:
        url = json.loads(process.stdout.readline())["url"]
        headers = bearer("s3cret") | {"X-Request-ID": "r9"}
        httpx.post(f"{url}{PREDICT}?key=s3cret", json=PIXELS, headers=headers)
        httpx.post(f"{url}{PREDICT}", json=PIXELS, headers=bearer("s3cret?"))
        process.terminate()
        _, log = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert "s3cret" not in log
    good, bad = map(json.loads, log.splitlines())
    assert (good["request_id"], good["status"], good["key"], good["model"]) == (
        "r9",
        200,
        "env0",
        "digits-tiny",
    )
    assert bad["status"] == 401


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf"])
def test_a_deadline_that_is_none_is_a_400(server, value):
    answer = server.http.post(PREDICT, json=PIXELS, headers={"X-Request-Timeout": value})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_deadline_that_cannot_be_met_is_refused_at_once(server):
    answer = server.http.post(PREDICT, json=PIXELS, headers={"X-Request-Timeout": "0.0000001"})
    assert (answer.status_code, answer.json()["code"]) == (429, "deadline_unmeetable")
    assert int(answer.headers["Retry-After"]) >= 1


def test_what_a_full_queue_refuses_is_not_waited_for_and_its_connection_goes_on(
    serve_in, environment, bundles
):
    with (
        serve_in(environment | {"MODELPRESS_QUEUE": "0"}, str(bundles / "chatter"), "--slots", "1") as server,
        server.http.stream("POST", "/v1/completions", json=STREAM) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        for path in ("/v2/models/chatter-tiny/infer", "/predict/chatter-tiny"):
            with announced(server, path) as connection:
                answer = connection.getresponse()
                assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
                assert answer.headers["X-Model-Variant"].startswith("chatter-tiny:")
                assert json.loads(answer.read())["code"] == "too_busy"
                connection.send(b" " * 40_000)
                connection.request("GET", "/livez")
                assert connection.getresponse().status == 200
        # Who asks before sending a body is not told to send it.
        with announced(server, path, Expect="100-continue") as connection:
            assert connection.sock.recv(12) == b"HTTP/1.1 429"


@contextmanager
def announced(server: Server, path: str, **headers: str) -> Iterator[HTTPConnection]:
    """A connection over which a request has begun: its head says that a body will come."""
    with closing(HTTPConnection(server.url.removeprefix("http://"), timeout=120)) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", "40000")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        yield connection


def test_every_answer_says_which_variant_it_is_from(server):
    version = server.http.get("/v2/models/digits-tiny").json()["versions"][0]
    assert server.http.post(PREDICT, json=PIXELS).headers["X-Model-Variant"] == f"digits-tiny:{version}"
    assert "X-Model-Variant" not in server.http.get("/v1/models").headers


def test_sigterm_flips_readiness_refuses_new_work_and_lets_a_stream_finish(serve, bundles):
    short = STREAM | {"max_tokens": 8000}
    with (
        serve(str(bundles / "chatter")) as server,
        server.http.stream("POST", "/v1/completions", json=short) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=server.url) as other:
            while other.get("/readyz").status_code == 200:
                pass
            refused = other.post("/v1/completions", json=STREAM)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert refused.headers["Retry-After"]
            assert other.get("/livez").status_code == 200
        assert [line for line in lines if line][-1] == "data: [DONE]"
        assert server.process.wait(timeout=120) == 0


def test_who_still_waits_after_the_grace_period_is_told_so(serve_in, environment, bundles, eventually):
    waiting = 'modelpress_num_requests_waiting{model="chatter-tiny"}'
    with (
        serve_in(environment | {"MODELPRESS_GRACE": "0"}, str(bundles / "chatter"), "--slots", "1") as server,
        server.http.stream("POST", "/v1/completions", json=STREAM) as response,
        ThreadPoolExecutor() as pool,
    ):
        lines = response.iter_lines()
        next(lines)
        asked = pool.submit(httpx.post, f"{server.url}/v1/completions", json=STREAM, timeout=120)
        eventually(lambda: server.metrics().get(waiting) == 1)
        server.process.send_signal(signal.SIGTERM)
        assert (asked.result().status_code, asked.result().json()["error"]["code"]) == (503, "draining")
        assert asked.result().headers["Retry-After"]
        assert server.process.wait(timeout=120) == 0


def test_who_still_reads_after_the_grace_period_is_told_so(serve_in, environment, bundles):
    impatient = environment | {"MODELPRESS_GRACE": "0"}
    with (
        serve_in(impatient, str(bundles / "chatter")) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = client.completions.create(**STREAM)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="send this to another one") as error:
            list(stream)
        assert (error.value.code, error.value.type) == ("draining", "server_error")
        assert server.process.wait(timeout=120) == 0


def test_a_killed_worker_is_replaced_and_its_clients_get_an_error(serve, bundles, eventually):
    with serve(str(bundles / "chatter"), "--workers", "2") as server:
        parent = psutil.Process(server.process.pid)
        eventually(lambda: server.metrics().get("modelpress_workers") == 2)
        before = {worker.pid for worker in parent.children()}
        started, failures = threading.Barrier(5), []

        def stream(_: int) -> None:
            with (
                httpx.Client(base_url=server.url, timeout=120) as client,
                client.stream("POST", "/v1/completions", json=STREAM) as response,
            ):
                lines = response.iter_lines()
                next(lines)
                started.wait(120)
                try:
                    for _line in lines:
                        pass
                except httpx.TransportError as error:
                    failures.append(error)

        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(stream, index) for index in range(4)]
            started.wait(120)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            for each in streams:
                each.result(120)
        assert len(failures) == 4
        eventually(lambda: len({worker.pid for worker in parent.children()} - before) == 2)
        with httpx.Client(base_url=server.url, timeout=120) as client:
            assert client.get("/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=120) == 0


def test_workers_are_counted_together(serve, bundles, eventually):
    series = (
        'modelpress_request_duration_seconds_count{model="digits-tiny",route="/predict/{model}",status="200"}'
    )
    with serve(str(bundles / "digits"), "--workers", "2") as server:
        for _ in range(20):
            # A connection of its own, so that both workers get some.
            assert httpx.post(server.url + PREDICT, json=PIXELS).status_code == 200
        eventually(lambda: server.metrics().get(series) == 20)


def test_the_first_workers_mistake_is_one_line(environment, tmp_path):
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "serve",
        str(tmp_path / "no"),
        "--workers",
        "2",
        "--port",
        "0",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no bundle here" in done.stderr


def test_models_are_listed_aliased_and_unloaded_over_http(serve, bundles, tmp_path: Path):
    write_digits(tmp_path / "other", "other")
    with serve(str(bundles / "digits"), str(tmp_path / "other")) as server:
        http = server.http
        alias = {"targets": [{"model": "digits-tiny"}], "shadow": {"model": "other-tiny", "share": 0.5}}
        assert http.put("/admin/aliases/digits", json=alias).status_code == 200
        assert http.post("/predict/digits", json=PIXELS).json()["model"] == "digits-tiny"
        parents = {each["id"]: each["parent"] for each in http.get("/v1/models").json()["data"]}
        assert parents == {"digits-tiny": None, "other-tiny": None, "digits": "digits-tiny"}
        assert http.get("/v1/models/digits").json()["id"] == "digits"
        listed = http.get("/admin/models").json()
        assert listed["models"].keys() == {"digits-tiny", "other-tiny"}
        assert listed["aliases"]["digits"]["shadow"]["share"] == 0.5
        assert http.post("/admin/models/other-tiny/unload").status_code == 200
        assert http.post("/predict/other-tiny", json=PIXELS).status_code == 404
        assert server.metrics()['modelpress_model_bytes{model="other-tiny"}'] == 0
        # Its shadow is gone: the alias goes on without.
        assert http.post("/predict/digits", json=PIXELS).status_code == 200
        assert http.delete("/admin/aliases/digits").status_code == 200
        assert http.post("/predict/digits", json=PIXELS).status_code == 404
        assert http.post("/admin/models/nothing/load").status_code == 400
        assert http.put("/admin/aliases/digits", json={"targets": []}).status_code == 400


def test_every_worker_follows_a_change_and_so_does_one_that_comes_later(
    serve, bundles, tmp_path: Path, eventually
):
    write_digits(tmp_path / "other", "other")

    def statuses(url: str, path: str) -> set[int]:
        # Connections of their own, so that both workers are asked.
        return {httpx.post(url + path, json=PIXELS, timeout=120).status_code for _ in range(24)}

    with serve(str(bundles / "digits"), str(tmp_path / "other"), "--workers", "2") as server:
        parent = psutil.Process(server.process.pid)
        eventually(lambda: server.metrics().get("modelpress_workers") == 2)
        alias = {"targets": [{"model": "digits-tiny"}]}
        assert httpx.put(f"{server.url}/admin/aliases/digits", json=alias).status_code == 200
        assert httpx.post(f"{server.url}/admin/models/other-tiny/unload", timeout=120).status_code == 200
        assert statuses(server.url, "/predict/digits") == {200}
        assert statuses(server.url, "/predict/other-tiny") == {404}
        lost = parent.children()[0]
        lost.kill()
        eventually(lambda: lost.pid not in {worker.pid for worker in parent.children()})
        eventually(lambda: server.metrics().get("modelpress_workers") == 2)
        assert statuses(server.url, "/predict/digits") == {200}
        assert statuses(server.url, "/predict/other-tiny") == {404}
        assert httpx.delete(f"{server.url}/admin/aliases/digits", timeout=120).status_code == 200
        assert statuses(server.url, "/predict/digits") == {404}


def write_fragile(target: Path) -> None:
    """`digits` again, but what it makes of an image with a white pixel has no shape that it could have."""
    manifest = write_digits(target).manifest
    path = target.parent / "model.onnx"
    model = onnx.load(path)
    graph = model.graph
    graph.node[-1].output[0] = "plain"
    constants = {"whole": np.array([0, 1, 2, 3]), "columns": np.array([-1, 2])}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            helper.make_node("ReduceMax", ["pixels", "whole"], ["brightest"], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["white"], to=TensorProto.INT64),
            helper.make_node("Add", ["columns", "white"], ["shape"]),
            helper.make_node("Reshape", ["plain", "shape"], ["logits"]),
        ]
    )
    onnx.save(model, path)
    write_bundle(target, manifest.model_copy(update={"files": {}}), {"model.onnx": path})


def test_a_bundle_that_breaks_in_one_of_several_workers_is_rolled_back_in_all(serve, tmp_path, eventually):
    old = write_digits(tmp_path / "digits").manifest.version

    def versions(url: str) -> set[str]:
        # Connections of their own, so that both workers are asked.
        answers = [httpx.post(url + PREDICT, json={"pixels": [[0]]}, timeout=120) for _ in range(16)]
        return {answer.headers["X-Model-Variant"].rpartition(":")[2] for answer in answers}

    with serve(str(tmp_path / "digits"), "--workers", "2") as server:
        eventually(lambda: server.metrics().get("modelpress_workers") == 2)
        write_fragile(tmp_path / "digits")
        load = httpx.post(f"{server.url}/admin/models/digits-tiny/load", timeout=120)
        assert load.status_code == 200
        (new,) = versions(server.url)
        assert new != old
        # One connection, which is one worker's: the other never sees such an image.
        with httpx.Client(base_url=server.url, timeout=120) as client:
            asked = [client.post(PREDICT, json=PIXELS) for _ in range(3)]
            assert [answer.status_code for answer in asked] == [500] * 3
            assert client.post(PREDICT, json=PIXELS).status_code == 200
        eventually(lambda: versions(server.url) == {old})


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    """A certificate that vouches for itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", cert, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_it_speaks_https_to_who_trusts_its_certificate_and_no_http(serve, bundles, certificate):
    cert, key = certificate
    with serve(str(bundles / "digits"), "--tls-cert", cert, "--tls-key", key) as server:
        assert server.url.startswith("https://")
        with httpx.Client(base_url=server.url, verify=ssl.create_default_context(cafile=cert)) as client:
            assert client.post(PREDICT, json=PIXELS).status_code == 200
        with pytest.raises(httpx.ConnectError, match="certificate"):
            server.http.get("/readyz")
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url.replace("https", "http") + "/readyz")


def test_a_certificate_without_its_key_or_with_another_file_is_one_line(environment, bundles, certificate):
    cert, _ = certificate
    for options in (["--tls-cert", cert], ["--tls-cert", cert, "--tls-key", cert]):
        command = [
            sys.executable,
            "-m",
            "service.cli",
            "serve",
            str(bundles / "digits"),
            "--port",
            "0",
            *options,
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, "TLS" in line) == (2, True)
