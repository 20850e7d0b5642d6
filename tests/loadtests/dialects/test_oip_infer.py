import json

import pytest

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
