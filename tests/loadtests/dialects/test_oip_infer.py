import json

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from loadtests.dialects.oip_infer import InferRequest, calls
from loadtests.errors import BadAnswer


def request(**tensor):
    keys = {"dialect": "oip-infer", "model": "a b", "inputs": [{"name": "x", "shape": [2, 3]} | tensor]}
    return InferRequest.model_validate(keys)


def bodies(**tensor):
    return [json.loads(call.body[0])["inputs"][0] for call in calls(request(**tensor))]


def test_the_request_is_that_of_the_protocol():
    call = calls(request(data=[1, 2, 3, 4, 5, 6], datatype="INT64"))[0]
    assert (call.method, call.path) == ("POST", "/v2/models/a%20b/infer")
    tensor = {"name": "x", "shape": [2, 3], "datatype": "INT64", "data": [1, 2, 3, 4, 5, 6]}
    assert json.loads(call.body[0]) == {"inputs": [tensor]}


def test_binary_tensors_come_behind_the_json_and_it_says_how_long_they_are():
    inputs = [
        {"name": "x", "shape": [2], "datatype": "FP16", "data": [0.5, -2]},
        {"name": "y", "shape": [2], "datatype": "BYTES", "data": ["a", "bcd"]},
        {"name": "z", "shape": [3], "datatype": "BOOL", "data": [True, False, True]},
    ]
    keys = {"dialect": "oip-infer", "model": "m", "inputs": inputs, "binary": True}
    call = calls(InferRequest.model_validate(keys))[0]
    length = int(call.headers["Inference-Header-Content-Length"])
    head, raw = json.loads(call.body[0][:length]), call.body[0][length:]
    assert [tensor["parameters"]["binary_data_size"] for tensor in head["inputs"]] == [4, 12, 3]
    assert not any("data" in tensor for tensor in head["inputs"])
    assert np.frombuffer(raw[:4], "<f2").tolist() == [0.5, -2]
    assert raw[4:] == b"\1\0\0\0a\3\0\0\0bcd" + b"\1\0\1"
    assert call.content_type == "application/octet-stream"


def test_given_data_make_one_body_and_generated_ones_several_that_differ():
    assert len(bodies(data=[0.5] * 6)) == 1
    generated = bodies()
    assert len(generated) == 16
    assert len({tuple(body["data"]) for body in generated}) == 16
    assert generated == bodies()
    assert generated != bodies(seed=1)


@pytest.mark.parametrize(
    ("tensor", "kind", "low", "high"),
    [
        ({"datatype": "FP32"}, float, 0, 1),
        ({"datatype": "FP32", "low": -1, "high": 2}, float, -1, 2),
        ({"datatype": "INT64", "high": 100}, int, 0, 99),
        ({"datatype": "INT8"}, int, 0, 1),
        ({"datatype": "BOOL"}, bool, 0, 1),
    ],
)
def test_generated_values_fit_the_type_and_the_range(tensor, kind, low, high):
    values = [value for body in bodies(**tensor) for value in body["data"]]
    assert {type(value) for value in values} == {kind}
    assert low <= min(values) < max(values) <= high


def test_strings_cannot_be_generated():
    with pytest.raises(ValueError, match="BYTES cannot be generated"):
        request(datatype="BYTES")


def test_an_answer_must_hold_an_output():
    def read(text):
        reader = calls(request())[0].new_reader()
        reader.feed(text[:5], 0.0)
        reader.feed(text[5:], 0.0)
        return reader.finish()

    assert read(b'{"outputs": [{"name": "y", "data": [1]}]}').tokens is None
    for text in (b'{"outputs": []}', b'{"choices": []}', b"<html>"):
        with pytest.raises(BadAnswer):
            read(text)


def test_tensors_come_from_npy_files_one_to_a_body(tmp_path):
    for name, value in (("a", 0.25), ("b", 0.5)):
        np.save(tmp_path / f"{name}.npy", np.full((2, 3), value))
    assert [body["data"] for body in bodies(files=str(tmp_path / "*.npy"))] == [[0.25] * 6, [0.5] * 6]


def test_images_are_fitted_into_the_last_two_axes(tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    Image.new("L", (8, 8), 0).save(tmp_path / "black.png")
    files = str(tmp_path / "*.png")
    assert [body["data"] for body in bodies(shape=[1, 1, 2, 2], files=files)] == [[0.0] * 4, [1.0] * 4]
    pixels = bodies(shape=[1, 3, 2, 2], files=files, datatype="UINT8")
    assert [body["data"] for body in pixels] == [[0] * 12, [255] * 12]
    scaled = bodies(shape=[1, 1, 2, 2], files=files, low=-1)
    assert scaled[0]["data"] == [-1.0] * 4


def test_a_file_of_another_shape_is_refused_before_the_run(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"shape \[4, 4\] is not \[2, 3\]"):
        request(files=str(tmp_path / "a.npy"))
    with pytest.raises(ValueError, match="no file matches"):
        request(files=str(tmp_path / "b.npy"))


@pytest.mark.parametrize("kind", ["empty", "archive", "text", "nan"])
def test_a_file_of_no_numbers_is_refused_before_the_run(tmp_path, kind):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        if kind == "archive":
            np.savez(file, x=np.zeros((2, 3)))
        elif kind != "empty":
            np.save(file, np.full((2, 3), "one" if kind == "text" else np.nan))
    with pytest.raises(ValidationError, match=r"a\.npy"):
        request(files=str(path))


def test_the_first_axis_is_counted_as_rows():
    assert calls(request())[0].rows == 2
    assert calls(request(shape=[6], data=[1, 2, 3, 4, 5, 6]))[0].rows == 1
