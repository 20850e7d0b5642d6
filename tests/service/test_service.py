"""The BentoML service as a whole: its own endpoints, probes, limits, and what is not in its process."""

import base64
import io
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import bentoml
import pytest
from bentoml.exceptions import BentoMLException
from PIL import Image


@pytest.fixture
def client(server):
    with bentoml.SyncHTTPClient(server.url) as client:
        yield client


def test_bentomls_own_client_lists_predicts_and_generates(client):
    assert [model["name"] for model in client.models()] == ["digits-tiny", "chatter-tiny"]
    file = io.BytesIO()
    Image.new("L", (8, 8), 255).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    assert client.predict(model="digits-tiny", image=[image])[0]["label"] == "bright"
    # BentoML's client would make a list of a text's characters where a list is all that may come.
    (alone,) = client.predict(model="digits-tiny", image=image)
    assert alone["label"] == "bright"
    (drawn,) = client.predict(model="digits-tiny", pixels=[[9] * 8] * 8)
    assert drawn["label"] == "dark"
    (written,) = client.predict(model="chatter-tiny", text="hello", max_tokens=9)
    assert len(written["text"]) == 9
    answer = client.generate(model="chatter-tiny", prompt="hello", max_tokens=9, temperature=0)
    assert (len(answer["text"]), answer["completion_tokens"]) == (9, 9)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/predict", {"model": "digit-tiny", "image": []}, 404, "did you mean 'digits-tiny'"),
        ("/predict", {"model": "digits-tiny", "image": []}, 400, "batch is empty"),
        ("/generate", {"model": "chatter-tiny", "prompt": "a", "max_tokens": -1}, 400, "max_tokens is -1"),
        ("/generate", {"model": "digits-tiny", "prompt": "a"}, 400, "does not generate"),
        ("/generate", {"model": 3, "prompt": "a"}, 400, "validation error"),
    ],
)
def test_native_errors_are_typed(server, path, body, status, message):
    answer = server.http.post(path, json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]


def test_bentomls_own_client_gets_the_message(client):
    with pytest.raises(BentoMLException, match="did you mean 'digits-tiny'"):
        client.predict(model="digit-tiny", image=[])


def test_the_generated_api_page_knows_the_native_endpoints(server):
    assert server.http.get("/").status_code == 200
    assert {"/models", "/predict", "/generate"} <= server.http.get("/docs.json").json()["paths"].keys()


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/healthz", "/health", "/v2/health/live", "/v2/health/ready"]
)
def test_every_probe_answers(server, path):
    assert server.http.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict/digits-tiny", "/v1/completions"])
def test_a_client_that_leaves_within_its_body_is_no_error_of_ours(server, eventually, path):
    def counted(status: int) -> float:
        route = path.replace("digits-tiny", "{model}")
        # Where the path names the model, it is known before the body has come.
        ours = f'route="{route}",status="{status}"}}'
        series = server.metrics().items()
        return sum(value for name, value in series if "_duration_seconds_count" in name and ours in name)

    before = {status: counted(status) for status in (499, 500)}
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    eventually(lambda: counted(499) == before[499] + 1)
    assert counted(500) == before[500]


def test_torch_is_not_in_the_process(server):
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "torch" not in maps


def test_a_request_id_is_kept_or_made(server):
    def ask(request_id: str) -> str:
        return server.http.get("/livez", headers={"X-Request-ID": request_id}).headers["X-Request-ID"]

    assert ask("mine-1") == "mine-1"
    assert len({ask("not sane"), ask("not sane"), "not sane"}) == 3


def test_the_server_is_ready_soon(server):
    # The bar is 3 s on an idle machine; a busy one must not fail the tests.
    assert server.seconds < 15


def completion(**fields: object) -> bytes:
    return json.dumps({"model": "chatter-tiny", "prompt": "a", **fields}).encode()


COMPLETIONS, INFER = "/v1/completions", "/v2/models/digits-tiny/infer"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (COMPLETIONS, b"{", 400, "invalid_request"),
        (COMPLETIONS, b"", 400, "invalid_request"),
        (COMPLETIONS, b"[]", 400, "invalid_request"),
        (COMPLETIONS, b'{"model": "chatter-tiny"}', 400, "invalid_request"),
        (COMPLETIONS, completion(max_tokens="1"), 400, "invalid_request"),
        (COMPLETIONS, completion(temperature=float("nan")), 400, "invalid_request"),
        (COMPLETIONS, completion(prompt=[]), 400, "invalid_request"),
        (COMPLETIONS, completion(prompt=""), 400, "invalid_input"),
        (COMPLETIONS, completion(prompt=[999]), 400, "invalid_input"),
        (COMPLETIONS, completion(prompt=[-1], echo=True), 400, "invalid_input"),
        (COMPLETIONS, completion(prompt=[2**40], echo=True, max_tokens=0), 400, "invalid_input"),
        (COMPLETIONS, completion(prompt=[999], echo=True, max_tokens=0), 400, "invalid_input"),
        (COMPLETIONS, completion(max_tokens=-1), 400, "invalid_request"),
        (COMPLETIONS, completion(model="digits-tiny"), 400, "invalid_input"),
        (COMPLETIONS, completion(prompt=["a"] * 73), 400, "invalid_input"),
        (COMPLETIONS, completion(prompt="a" * 20_000), 400, "context_length_exceeded"),
        (COMPLETIONS, completion(model="chatter"), 404, "model_not_found"),
        (COMPLETIONS, bytes(33 * 2**20), 413, "body_too_large"),
        ("/v1/models", b"", 405, "method_not_allowed"),
        ("/v1/nothing", b"", 404, "not_found"),
        (INFER, b"{", 400, "invalid_request"),
        (INFER, b'{"inputs": []}', 400, "invalid_request"),
        ("/v2/models/digits-tiny/versions/1/infer", b"{}", 404, "model_not_found"),
        ("/v2/models/nothing/infer", b"{}", 404, "model_not_found"),
        ("/v2/nothing", b"", 404, "not_found"),
        ("/nothing", b"", 404, "not_found"),
        ("/livez", b"", 405, "method_not_allowed"),
        ("/predict/digits-tiny", b"{", 400, "invalid_request"),
        ("/predict/nothing", b"{}", 404, "model_not_found"),
        ("/predict/digits-tiny", bytes(33 * 2**20), 413, "body_too_large"),
    ],
)
def test_a_wrong_request_gets_a_typed_error_in_its_dialect(server, path, body, status, code):
    answer = server.http.post(path, content=body)
    assert answer.status_code == status
    error = answer.json()
    if path.startswith("/v1"):
        assert error["error"].keys() == {"message", "type", "param", "code"}
        assert (error["error"]["code"], bool(error["error"]["message"])) == (code, True)
    else:
        assert (error["code"], bool(error["error"])) == (code, True)
