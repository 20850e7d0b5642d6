"""Tensors of the Open Inference Protocol, to numpy and back."""

import numpy as np
import pytest

from service.errors import InvalidRequest, ModelFailed
from service.tensors import DATATYPES, InputTensor, decode, encode


@pytest.mark.parametrize("dtype", DATATYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_survives_the_round_trip(dtype, binary):
    array = np.array([[0, 1, 2], [1, 0, 1]]).astype(dtype)
    described, raw = encode("x", array, binary=binary)
    back = decode(InputTensor.model_validate(described), memoryview(raw))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_nested_and_flat_data_are_the_same():
    nested = InputTensor(name="x", shape=[2, 2], datatype="INT64", data=[[1, 2], [3, 4]])
    flat = InputTensor(name="x", shape=[2, 2], datatype="INT64", data=[1, 2, 3, 4])
    np.testing.assert_array_equal(decode(nested, memoryview(b"")), decode(flat, memoryview(b"")))


def test_fractions_do_not_become_integers():
    with pytest.raises(InvalidRequest, match="not INT64"):
        decode(InputTensor(name="x", shape=[1], datatype="INT64", data=[1.5]), memoryview(b""))


def test_json_cannot_carry_nan():
    with pytest.raises(ModelFailed, match="binary"):
        encode("x", np.array([np.nan], np.float32), binary=False)
    _, raw = encode("x", np.array([np.nan], np.float32), binary=True)
    assert np.isnan(np.frombuffer(raw, np.float32)).all()
