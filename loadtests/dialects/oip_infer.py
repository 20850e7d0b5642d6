"""The Open Inference Protocol (KServe v2) over REST: `POST /v2/models/{name}/infer`.

Tensors are given in the scenario, read from `.npy` files or images, or generated from a seed. Several
different ones are made before the run, so that a server that caches answers is not measured by its cache.

JSON is what the protocol requires of every server. `binary` sends the inputs as raw little-endian bytes after
the JSON instead (Triton's binary tensor data extension); outputs come back as JSON in either case.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationInfo, field_validator, model_validator

from loadtests.config import Config, complaint
from loadtests.dialects.entry import Entry
from loadtests.dialects.exchange import Answer, Call, WholeBody, excerpt, parse_object
from loadtests.errors import BadAnswer
from loadtests.files import all_beside, is_recorded

FLOATS = ("FP16", "FP32", "FP64")
DTYPES = {f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)}
DTYPES |= {f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)}
DTYPES |= {f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)} | {"BOOL": "?"}

# Enough digits for an FP16; more would only lengthen the body.
DECIMALS = 4


class Tensor(Config):
    """An input: its data flat and row-major, or from files, or else generated uniformly in [low, high).

    `files` is a pattern for `.npy` arrays of this shape or for images, which are fitted into its last two
    axes with values in [low, high], the channels before them. `high` is 1 for floating point and, for
    integers, 2: bits, which any embedding table and mask can take.
    """

    name: str
    shape: tuple[PositiveInt, ...]
    datatype: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
        "BYTES",
    ] = "FP32"
    data: tuple[bool | int | float | str, ...] | None = None
    files: tuple[str, ...] = ()
    low: float = 0
    high: float | None = None
    seed: NonNegativeInt = 0

    @field_validator("files", mode="before")
    @classmethod
    def _beside_the_scenario(cls, pattern: object, info: ValidationInfo) -> object:
        return all_beside(pattern, info) if isinstance(pattern, str) else pattern

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        if self.files and self.data is not None:
            raise complaint("give data or files, not both", at=("files",))
        for file in () if is_recorded(info) else self.files:
            try:
                read(self, file)
            except (OSError, ValueError, EOFError) as error:
                raise complaint(f"{file}: {error}", at=("files",)) from error
        if self.data is None and self.datatype == "BYTES":
            raise complaint("BYTES cannot be generated; give data", at=("datatype",))
        if self.data is not None and len(self.data) != math.prod(self.shape):
            raise complaint(f"{len(self.data)} values do not fill shape {list(self.shape)}", at=("data",))
        return self


class InferRequest(Entry):
    """One entry of the mix. `variants` is how many different bodies are made of generated inputs.

    `binary` sends the inputs as bytes, for servers that speak the extension.
    """

    dialect: Literal["oip-infer"]
    model: str
    inputs: tuple[Tensor, ...] = Field(min_length=1)
    variants: PositiveInt = 16
    binary: bool = False

    @property
    def target(self) -> str:
        return self.model


def calls(request: InferRequest) -> list[Call]:
    """One call for each variant or file; a single one when nothing varies."""
    serialise = binary_call if request.binary else json_call
    variants = range(max(_variants(tensor, request.variants) for tensor in request.inputs))
    return [serialise(request, variant) for variant in variants]


def json_call(request: InferRequest, variant: int) -> Call:
    """The tensors in the JSON."""
    return _call(request, json.dumps(body(request, variant)).encode())


def binary_call(request: InferRequest, variant: int) -> Call:
    """The tensors behind the JSON, in its order."""
    document, raw = body(request, variant), b""
    for tensor in document["inputs"]:
        encoded = encode(tensor["datatype"], tensor.pop("data"))
        tensor["parameters"] = {"binary_data_size": len(encoded)}
        raw += encoded
    head = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": f"{len(head)}"}
    return replace(_call(request, head + raw), content_type="application/octet-stream", headers=headers)


def _call(request: InferRequest, content: bytes) -> Call:
    path, shape = f"/v2/models/{quote(request.model)}/infer", request.inputs[0].shape
    rows = shape[0] if len(shape) > 1 else 1
    return Call("POST", path, (content,), partial(WholeBody, check_outputs), rows=rows)


def encode(datatype: str, values: Sequence[Any]) -> bytes:
    """Row-major and little-endian; each string of BYTES behind its length in four bytes."""
    if datatype != "BYTES":
        return np.array(values, dtype=DTYPES[datatype]).tobytes()
    strings = [str(value).encode() for value in values]
    return b"".join(len(string).to_bytes(4, "little") + string for string in strings)


def body(request: InferRequest, variant: int) -> dict[str, Any]:
    """The request's JSON."""
    inputs = [
        {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "data": _values(tensor, variant),
        }
        for tensor in request.inputs
    ]
    return {"inputs": inputs}


def _variants(tensor: Tensor, generated: int) -> int:
    return 1 if tensor.data is not None else len(tensor.files) or generated


def _values(tensor: Tensor, variant: int) -> Any:
    if tensor.data is not None:
        return tensor.data
    if tensor.files:
        return read(tensor, tensor.files[variant % len(tensor.files)])
    return generate(tensor, variant)


def read(tensor: Tensor, file: str) -> list[float] | list[int]:
    """The values of a `.npy` file or an image, flat. Raises ValueError or OSError."""
    values = _read_array(file) if file.endswith(".npy") else _read_image(tensor, file)
    if math.prod(values.shape) != math.prod(tensor.shape):
        raise ValueError(f"shape {list(values.shape)} is not {list(tensor.shape)}")
    if tensor.datatype in FLOATS:
        return [round(value, DECIMALS) for value in values.ravel().tolist()]
    return values.ravel().astype(int).tolist()


def _read_array(file: str) -> NDArray[Any]:
    values = np.load(file, allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError("not one array of finite numbers")
    return values


def _read_image(tensor: Tensor, file: str) -> NDArray[np.float64]:
    """(channels, height, width) from black at `low` to white at `high`."""
    from PIL import Image

    *_, channels, height, width = (1, 1, *tensor.shape)
    with Image.open(file) as image:
        fitted = image.convert("L" if channels == 1 else "RGB").resize((width, height))
    scaled = np.atleast_3d(np.asarray(fitted)).transpose(2, 0, 1) / 255
    white = 255 if tensor.high is None and tensor.datatype not in FLOATS else tensor.high or 1.0
    return tensor.low + scaled * (white - tensor.low)


def generate(tensor: Tensor, variant: int) -> list[float] | list[int] | list[bool]:
    """Uniform values for the tensor's type, the same for the same seed and variant."""
    generator = np.random.default_rng([tensor.seed, variant])
    size = math.prod(tensor.shape)
    if tensor.datatype in FLOATS:
        high = 1.0 if tensor.high is None else tensor.high
        return [round(value, DECIMALS) for value in generator.uniform(tensor.low, high, size).tolist()]
    integers = generator.integers(int(tensor.low), 2 if tensor.high is None else int(tensor.high), size)
    return [bool(value) for value in integers] if tensor.datatype == "BOOL" else integers.tolist()


def check_outputs(text: bytes) -> Answer:
    """An answer must hold at least one named output."""
    match parse_object(text):
        case {"outputs": [{"name": str()}, *_]}:
            return Answer()
    raise BadAnswer("bad_body", f"no outputs in the answer: {excerpt(text)}")
