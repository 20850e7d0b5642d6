"""The Open Inference Protocol, spoken by the unmodified `tritonclient`."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tritonclient import http
from tritonclient.utils import InferenceServerException

from runtime.bundle import Bundle
from runtime.model import load_model
from runtime.sampling import SamplingParams

MODEL = "digits-tiny"
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).random((3, 1, 8, 8), np.float32)


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


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_refused_for_what_it_is(client, pixels, algorithm):
    tensor = http.InferInput("pixels", pixels.shape, "FP32")
    tensor.set_data_from_numpy(pixels)
    with pytest.raises(InferenceServerException, match=f"comes as '{algorithm}'") as caught:
        client.infer(MODEL, [tensor], request_compression_algorithm=algorithm)
    assert caught.value.status() == "415"
    answer = client.infer(MODEL, [tensor], response_compression_algorithm=algorithm)
    assert answer.as_numpy("logits").shape == (3, 2)


def test_an_extension_that_is_not_there_is_refused_by_name(client, pixels):
    tensor = http.InferInput("pixels", pixels.shape, "FP32")
    tensor.set_data_from_numpy(pixels)
    shared = http.InferRequestedOutput("logits")
    shared.set_shared_memory("region", 24)
    for output in (shared, http.InferRequestedOutput("logits", class_count=1)):
        with pytest.raises(InferenceServerException, match="is not supported"):
            client.infer(MODEL, [tensor], outputs=[output])
    tensor.set_shared_memory("region", pixels.nbytes)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer(MODEL, [tensor])


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
        ({"data": None}, "neither 'data' nor binary data"),
        ({"data": [[1, 2], [3]]}, "ragged"),
        ({"data": [1e300] * 64}, "NaN or infinite"),
        ({"data": [float("nan")] * 64}, "NaN or infinite"),
        ({"shape": [0, 1, 8, 8], "data": []}, "send at least one row"),
        ({"shape": [-1, 1, 8, 8]}, "inputs.0.shape.0"),
        ({"shape": [2**70, 0], "data": []}, "inputs.0.shape.0"),
        ({"shape": [1] * 65, "data": [0.5]}, "inputs.0.shape"),
        ({"shape": [0, 2**62, 2**62], "data": []}, "no tensor has shape"),
        ({"datatype": "FP64"}, "send float32"),
        ({"datatype": "INT8", "data": [300] * 64}, "does not fit INT8"),
        ({"datatype": "BYTES"}, "send strings"),
        ({"datatype": "BYTES", "data": ["a"] * 64}, "not a readable image"),
        ({"datatype": "FLOAT"}, "not one of"),
        ({"name": "pixel"}, "unknown input 'pixel'; digits-tiny takes 'pixels'"),
        ({"data": None, "parameters": {"binary_data_size": 256}}, "cut off at 0 bytes"),
        ({"parameters": {"binary_data_size": 256}}, "both 'data' and binary data"),
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


def test_bytes_that_are_no_tensors_are_refused(server, pixels):
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "FP32"}
    described = {"inputs": [tensor | {"parameters": {"binary_data_size": pixels.nbytes}}]}
    written = json.dumps(described).encode()
    headers = {"Inference-Header-Content-Length": str(len(written))}
    answer = server.http.post(INFER, content=written + pixels.tobytes() + b"more", headers=headers)
    assert answer.status_code == 400
    assert "4 bytes after its last tensor" in answer.json()["error"]


@pytest.mark.parametrize("length", ["3", "-1", "two", "9" * 5000])
def test_a_header_length_beyond_the_body_is_refused(server, length):
    answer = server.http.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": length})
    assert answer.status_code == 400
    assert "no length within the body" in answer.json()["error"]


def file(value: int) -> bytes:
    picture = io.BytesIO()
    Image.new("L", (8, 8), value).save(picture, "PNG")
    return picture.getvalue()


def test_image_files_are_taken_as_they_are(client):
    given = np.array([file(255), file(0)], object)
    tensor = http.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(given)
    logits = client.infer(MODEL, [tensor]).as_numpy("logits")
    np.testing.assert_allclose(logits, [[-0.5, 0.5], [0.5, -0.5]], atol=1e-6)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_text_model_takes_prompts_and_gives_their_continuations(client, bundles, binary_in, binary_out):
    model = load_model(Bundle.open(bundles / "chatter"))
    prompts = ["def main(", "import ", "x = ["]
    tensor = http.InferInput("text_input", [3, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[each.encode()] for each in prompts], object), binary_data=binary_in)
    wanted = [http.InferRequestedOutput("text_output", binary_data=binary_out)]
    result = client.infer(
        "chatter-tiny",
        [tensor],
        outputs=wanted,
        parameters={"max_tokens": 7, "temperature": 0.0, "mood": "any"},
    )
    expected = ["".join(model.generate(each, SamplingParams(7, temperature=0))) for each in prompts]
    said = result.as_numpy("text_output")
    assert said.shape == (3, 1)
    assert [each.decode() if isinstance(each, bytes) else each for each in said.ravel()] == expected


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        ({"name": "x"}, {}, "only input is 'text_input'"),
        ({"datatype": "INT64", "data": [1]}, {}, "BYTES"),
        ({"shape": [0], "data": []}, {}, "BYTES"),
        ({}, {"top_p": 2.0}, "top_p is 2"),
        ({}, {"seed": "x"}, "seed"),
        ({"data": [""]}, {}, "prompt is empty"),
    ],
)
def test_what_a_text_model_cannot_take_is_refused(server, change, parameters, message):
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]} | change
    body = {"inputs": [tensor], "parameters": parameters}
    answer = server.http.post("/v2/models/chatter-tiny/infer", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
