"""Tensors of the Open Inference Protocol, to numpy and back."""

import numpy as np
import orjson
import pytest

from service.errors import InvalidRequest
from service.json_response import dumps
from service.tensors import DATATYPES, InputTensor, decode, encode, texts


@pytest.mark.parametrize("dtype", DATATYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_survives_the_round_trip(dtype, binary):
    array = np.array([[0, 1, 2], [1, 0, 1]]).astype(dtype)
    if dtype == "object":
        array = np.array([[b"", "é".encode()], [b"a\0", b"ab\n"]], object)
    described, raw = encode("x", array, binary=binary)
    back = decode(InputTensor.model_validate(orjson.loads(dumps(described))), memoryview(raw))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_nested_and_flat_data_are_the_same():
    nested = InputTensor(name="x", shape=[2, 2], datatype="INT64", data=[[1, 2], [3, 4]])
    flat = InputTensor(name="x", shape=[2, 2], datatype="INT64", data=[1, 2, 3, 4])
    np.testing.assert_array_equal(decode(nested, memoryview(b"")), decode(flat, memoryview(b"")))


def test_fractions_do_not_become_integers():
    with pytest.raises(InvalidRequest, match="not INT64"):
        decode(InputTensor(name="x", shape=[1], datatype="INT64", data=[1.5]), memoryview(b""))


def test_nan_is_null_in_json_and_itself_in_binary():
    described, _ = encode("x", np.array([1, np.nan, np.inf], np.float32), binary=False)
    assert orjson.loads(dumps(described))["data"] == [1.0, None, None]
    _, raw = encode("x", np.array([np.nan], np.float32), binary=True)
    assert np.isnan(np.frombuffer(raw, np.float32)).all()


@pytest.mark.parametrize(
    ("data", "raw", "message"),
    [
        ([1], b"", "send strings"),
        (None, b"", "neither 'data' nor binary data"),
        ([["a"], ["b", "c"]], b"", "send strings"),
        (None, b"\x05\0\0\0ab", "within an element"),
        (None, b"\x05\0", "within an element"),
        (None, b"\x01\0\0\0a\0\0\0\0", "2 values do not fill"),
    ],
)
def test_bytes_that_are_none_are_refused(data, raw, message):
    parameters = {"binary_data_size": len(raw)} if raw else {}
    tensor = InputTensor.model_validate(
        {"name": "x", "shape": [1], "datatype": "BYTES", "data": data, "parameters": parameters}
    )
    with pytest.raises(InvalidRequest, match=message):
        decode(tensor, memoryview(raw))


def test_texts_are_utf_8():
    assert texts(np.array([["é".encode()]], object)) == ["é"]
    with pytest.raises(InvalidRequest, match="UTF-8"):
        texts(np.array([b"\xff"], object))
