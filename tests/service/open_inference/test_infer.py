"""The Open Inference Protocol, spoken by the unmodified `tritonclient`."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from tritonclient import http
from tritonclient.utils import InferenceServerException

from runtime.bundle import Bundle
from runtime.model import load_model

MODEL = "digits-tiny"
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture
def client(server) -> Iterator[http.InferenceServerClient]:
    with http.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).random((3, 1, 8, 8), np.float32)


def test_health_and_metadata(client, bundles):
    manifest = Bundle.open(bundles / "digits").manifest
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, manifest.version)
    assert not client.is_model_ready("nonsense")
    assert client.get_server_metadata()["name"] == "modelpress"
    metadata = client.get_model_metadata(MODEL, manifest.version)
    assert metadata["versions"] == [manifest.version]
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_infer_gives_what_the_model_gives_in_process(client, bundles, pixels, binary_in, binary_out):
    tensor = http.InferInput("pixels", pixels.shape, "FP32")
    tensor.set_data_from_numpy(pixels, binary_data=binary_in)
    wanted = None if binary_out is None else [http.InferRequestedOutput("logits", binary_data=binary_out)]
    result = client.infer(MODEL, [tensor], outputs=wanted, request_id="seven")
    expected = load_model(Bundle.open(bundles / "digits")).run({"pixels": pixels})["logits"]
    np.testing.assert_allclose(result.as_numpy("logits"), expected, rtol=1e-6)
    assert result.get_response()["id"] == "seven"


def test_errors_reach_the_client_with_their_message(client, pixels):
    tensor = http.InferInput("pixels", [3, 64], "FP32")
    tensor.set_data_from_numpy(pixels.reshape(3, 64))
    with pytest.raises(InferenceServerException, match=r"send \[batch, 1, 8, 8\]") as caught:
        client.infer(MODEL, [tensor])
    assert caught.value.status() == "400"


def test_an_output_that_does_not_exist_is_refused(client, pixels):
    tensor = http.InferInput("pixels", pixels.shape, "FP32")
    tensor.set_data_from_numpy(pixels)
    with pytest.raises(InferenceServerException, match="did you mean 'logits'"):
        client.infer(MODEL, [tensor], outputs=[http.InferRequestedOutput("logit")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": [0.5] * 63}, "63 values do not fill"),
        ({"data": ["a"] * 64}, "not FP32"),
        ({"data": None}, "not FP32"),
        ({"data": [[1, 2], [3]]}, "ragged"),
        ({"data": [1e300] * 64}, "NaN or infinite"),
        ({"data": [float("nan")] * 64}, "NaN or infinite"),
        ({"shape": [0, 1, 8, 8], "data": []}, "send at least one row"),
        ({"shape": [-1, 1, 8, 8]}, "inputs.0.shape.0"),
        ({"datatype": "FP64"}, "send float32"),
        ({"datatype": "INT8", "data": [300] * 64}, "does not fit INT8"),
        ({"datatype": "BYTES"}, "not one of"),
        ({"name": "pixel"}, "unknown input 'pixel'; digits-tiny takes 'pixels'"),
        ({"data": None, "parameters": {"binary_data_size": 256}}, "cut off at 0 bytes"),
    ],
)
def test_a_wrong_tensor_is_a_400_that_says_what_is_wrong(server, change, message):
    tensor = {"name": "pixels", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64} | change
    answer = server.http.post(INFER, content=json.dumps({"inputs": [tensor]}))
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_tensor_given_twice_is_refused(server):
    tensor = {"name": "pixels", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
    answer = server.http.post(INFER, json={"inputs": [tensor, tensor]})
    assert answer.status_code == 400
    assert "given twice" in answer.json()["error"]


def test_a_header_length_beyond_the_body_is_refused(server):
    answer = server.http.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": "9"})
    assert answer.status_code == 400


def test_a_text_model_says_where_to_ask_it(server):
    answer = server.http.post("/v2/models/chatter-tiny/infer", json={"inputs": []})
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]
