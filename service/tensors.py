"""The Open Inference Protocol's tensors: to numpy and back, as JSON values or as binary.

Binary: raw little-endian bytes after the JSON, row-major, their number in `binary_data_size`
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md).
BYTES are texts or files: numpy arrays of `bytes` objects; in JSON, of strings.
It checks that values, shape and datatype agree; whether a model wants such a tensor is the model's to say.
"""

import math
import struct
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from runtime.processing import Array
from service.errors import InvalidRequest

DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
    "object": "BYTES",
}
_DTYPES = {datatype: np.dtype(dtype) for dtype, datatype in DATATYPES.items()}
# A dtype makes its name anew each time that it is asked for it.
_NAMES = {dtype: datatype for datatype, dtype in _DTYPES.items()}
# Which kinds of parsed JSON numbers may become which dtype without losing anything but precision.
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
# Before each element of a binary BYTES tensor: its length.
_LENGTH = struct.Struct("<I")


class Parameters(BaseModel):
    """The binary extension's parameters; the protocol allows any others, and they are kept."""

    # Frozen, because pydantic deep-copies a default that is not, for every request.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False


class InputTensor(BaseModel):
    """One tensor of a request."""

    model_config = ConfigDict(strict=True)

    name: str
    # numpy has 64 axes at most; multiplying numbers without bounds would take a client's word for minutes.
    shape: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(max_length=64)
    datatype: str
    data: Any = None
    parameters: Parameters = Parameters()


def decode(tensor: InputTensor, binary: memoryview) -> Array:
    """The tensor as an array; `binary` starts with its bytes if it has any. Raises InvalidRequest."""
    if tensor.datatype not in _DTYPES:
        raise _wrong(tensor, f"datatype '{tensor.datatype}' is not one of {', '.join(_DTYPES)}")
    dtype = _DTYPES[tensor.datatype]
    size = tensor.parameters.binary_data_size
    if size is None and tensor.data is None:
        raise _wrong(tensor, "it has neither 'data' nor binary data; shared memory is not read")
    if size is not None and tensor.data is not None:
        raise _wrong(tensor, "it has both 'data' and binary data; send one of them")
    values = _from_json(tensor, dtype) if size is None else _from_binary(tensor, dtype, binary[:size])
    if values.size != math.prod(tensor.shape):
        raise _wrong(tensor, f"{values.size} values do not fill shape {tensor.shape}")
    try:
        return values.reshape(tensor.shape)
    except ValueError:  # an axis of 0, beside others of more than there are addresses
        raise _wrong(tensor, f"no tensor has shape {tensor.shape}") from None


def encode(name: str, tensor: Array, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    """The tensor's JSON with its values as an array, and its bytes (none where the values are in the JSON).

    JSON cannot say NaN or infinity: there they become null. Binary carries them as they are.
    """
    described = {"name": name, "shape": list(tensor.shape), "datatype": _NAMES[tensor.dtype]}
    if binary:
        raw = _joined(tensor) if tensor.dtype.hasobject else tensor.tobytes()
        return {**described, "parameters": {"binary_data_size": len(raw)}}, raw
    if tensor.dtype.hasobject:
        return {**described, "data": [value.decode(errors="replace") for value in tensor.ravel()]}, b""
    return {**described, "data": np.ascontiguousarray(tensor).ravel()}, b""


def texts(tensor: Array) -> list[str]:
    """A BYTES tensor as texts. Raises InvalidRequest for what is not UTF-8."""
    try:
        return [value.decode() for value in tensor.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"a text is not UTF-8 ({error}); send UTF-8") from None


def _from_json(tensor: InputTensor, dtype: np.dtype[Any]) -> Array:
    if dtype.hasobject:
        return _from_strings(tensor)
    try:
        values = np.asarray(tensor.data)
    except ValueError:
        raise _wrong(tensor, "the data is ragged; send rows of one length") from None
    if values.dtype.kind not in _KINDS[dtype.kind] and values.size:
        raise _wrong(tensor, f"the data is not {tensor.datatype}")
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype)
    try:
        return np.asarray(tensor.data, dtype)
    except OverflowError:
        raise _wrong(tensor, f"a value does not fit {tensor.datatype}") from None


def _from_strings(tensor: InputTensor) -> Array:
    # As objects: numpy's own strings lose the zeros at their ends.
    values = np.asarray(tensor.data, object).ravel()
    if not all(isinstance(value, str) for value in values):
        raise _wrong(tensor, "the data is not BYTES: send strings")
    return _objects([value.encode() for value in values])


def _from_binary(tensor: InputTensor, dtype: np.dtype[Any], raw: memoryview) -> Array:
    if len(raw) != tensor.parameters.binary_data_size:
        raise _wrong(tensor, f"its binary data is cut off at {len(raw)} bytes")
    if dtype.hasobject:
        return _objects(_split(tensor, raw))
    if len(raw) % dtype.itemsize:
        raise _wrong(tensor, f"{len(raw)} bytes are no whole number of {tensor.datatype} values")
    return np.frombuffer(raw, dtype)


def _objects(values: list[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _split(tensor: InputTensor, raw: memoryview) -> list[bytes]:
    """The elements of a binary BYTES tensor."""
    values, at = [], 0
    while at < len(raw):
        start = at + _LENGTH.size
        at = start + (_LENGTH.unpack(raw[at:start])[0] if start <= len(raw) else len(raw))
        if at > len(raw):
            raise _wrong(tensor, "its binary data ends within an element")
        values.append(bytes(raw[start:at]))
    return values


def _joined(tensor: Array) -> bytes:
    return b"".join(_LENGTH.pack(len(value)) + value for value in tensor.ravel())


def _wrong(tensor: InputTensor, reason: str) -> InvalidRequest:
    return InvalidRequest(f"input '{tensor.name}': {reason}", tensor.name)
